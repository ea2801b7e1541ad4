"""Relevance of patches, frames and sound for a prediction; pure functions over a model."""

from aver_jax.relevance.explain import (
    METHODS,
    Relevance,
    explain,
    knows_class,
    methods_of,
    passes_of,
    paths_of,
)

__all__ = ["METHODS", "Relevance", "explain", "knows_class", "methods_of", "passes_of", "paths_of"]
