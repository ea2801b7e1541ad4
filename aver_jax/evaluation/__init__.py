"""Scores of trained models: the forward pass over a dataset, metrics and their intervals."""
