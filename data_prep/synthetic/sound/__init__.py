"""The voice: what is said, how, and how it was recorded."""
