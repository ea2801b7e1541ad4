"""Fusion of attention heads: one non-negative map per attention, from weights and gradients.

A is the attention after softmax, dA the gradient of the explained logit with respect to it, both
[..., heads, query, key].
"""

import math

import jax.numpy as jnp
from jax import Array


def tibav(attention: Array, gradient: Array) -> Array:
    """Returns mean_h((dA * A)^+), clamped before the mean (Chefer et al., ICCV 2021, eq. 5)."""
    return jnp.mean(jnp.maximum(attention * gradient, 0), axis=-3)


def rollout_grad(attention: Array, gradient: Array) -> Array:
    """Returns (mean_h(A * dA))^+, the mean first (Gildenblat's gradient attention rollout)."""
    return jnp.maximum(jnp.mean(attention * gradient, axis=-3), 0)


def rollout_min(attention: Array) -> Array:
    """Returns min_h A, du Toit's choice for rollout."""
    return jnp.min(attention, axis=-3)


def rollout_mean(attention: Array) -> Array:
    """Returns mean_h A (Abnar & Zuidema 2020)."""
    return jnp.mean(attention, axis=-3)


def rollout_max(attention: Array) -> Array:
    """Returns max_h A."""
    return jnp.max(attention, axis=-3)


def without_lowest(fused: Array, ratio: float) -> Array:
    """Returns maps [..., query, key] whose lowest entries are 0, a share `ratio` of each map.

    Gildenblat's `discard_ratio`: what remains is what most attention is given to. As in his code,
    the first entry, which is cls attending to itself where a map has a cls token, is never among
    them, and counts as one where it is low.

    Args:
      fused: non-negative.
      ratio: at least 0, less than 1; static.
    """
    flat = fused.reshape(-1, math.prod(fused.shape[-2:]))
    number = int(flat.shape[1] * ratio)
    if not number:
        return fused
    lowest = jnp.argsort(flat, axis=1)[:, :number]
    rows = jnp.arange(len(flat))[:, None]
    kept = flat.at[rows, lowest].set(0).at[:, 0].set(flat[:, 0])
    return kept.reshape(fused.shape)
