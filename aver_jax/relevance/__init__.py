"""Relevance of patches and frames for a prediction; pure functions over a model."""

from aver_jax.relevance.explain import METHODS, Relevance, explain

__all__ = ["METHODS", "Relevance", "explain"]
