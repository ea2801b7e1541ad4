"""The text of compiled functions, and what their instructions cost."""
