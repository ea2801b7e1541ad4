"""XLA's optimised programs: their text, what their instructions cost, and traces of them."""
