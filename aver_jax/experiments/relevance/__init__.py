"""Experiments on relevance maps: of a trained run, and on corpora whose truth is known."""
