"""XLA's optimised modules (HLO): their text, the costs of their instructions, and traces."""
