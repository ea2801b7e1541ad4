"""Experiments on relevance maps: what they mark, and whether the model depends on it."""
