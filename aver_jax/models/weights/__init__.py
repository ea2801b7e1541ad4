"""Checkpoints of other projects as parameters of our models."""
