"""Imputation of ROAD (Rong et al., ICML 2022): what is removed is filled in from its surroundings.

A replaced patch of one colour tells by its shape which patches were removed, and a network can use
that. Noisy linear imputation leaves no such trace: every removed pixel becomes the weighted mean of
its eight neighbours (1/6 of each beside it, 1/12 of each diagonal one; at the picture's edge the
weights of those that are there), all of them at once, and a little noise. The equations are
symmetric and positive definite; conjugate gradients solve them on the device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from aver_jax.explanation.masking import pixels_of, substitute

#: Shares of tubelets that are removed.
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
# Standard deviation, in grey levels: 1% of the range, as the authors' code has it.
NOISE = 2.55
# Grey levels; frames are rounded to whole ones.
_TOLERANCE = 0.1
_MOST_STEPS = 500


def imputed_by(frames: Array) -> Callable[[Array], Array]:
    """Returns a function of a mask bool [B,T,h,w] that gives frames with the masked filled in.

    Args:
      frames: uint8 [B,T,H,W,3]. A frame that is wholly masked becomes the clip's mean colour.
    """
    noise = NOISE * jax.random.normal(jax.random.key(0), frames.shape[1:])
    start = substitute(frames.astype(jnp.float32), "mean")

    def imputed(mask: Array) -> Array:
        removed = pixels_of(mask, frames.shape)
        filled = solved(frames.astype(jnp.float32), removed, start)
        # The same noise for every clip: a clip does not depend on the rest of its batch.
        noisy = jnp.clip(jnp.round(filled + noise[None]), 0, 255).astype(frames.dtype)
        return jnp.where(removed, noisy, frames)

    return imputed


def solved(frames: Array, removed: Array, start: Array) -> Array:
    """Returns frames whose removed pixels are the weighted means of their neighbours.

    Args:
      frames: float32 [B,T,H,W,3].
      removed: bool [B,T,H,W,1].
      start: where the iteration begins, and what a wholly removed frame keeps; broadcasts to
        frames.
    """
    weight = _neighbours(jnp.ones((1, 1, *frames.shape[2:4], 1), jnp.float32))
    inside = removed.astype(jnp.float32)

    def applied(x: Array) -> Array:
        return inside * (weight * x - _neighbours(x))

    def dot(x: Array, y: Array) -> Array:
        return jnp.sum(x * y, axis=(2, 3), keepdims=True)

    x = inside * jnp.broadcast_to(start, frames.shape)
    residual = inside * _neighbours((1 - inside) * frames) - applied(x)

    def going(state: tuple[Array, ...]) -> Array:
        _, residual, _, _, step = state
        return (jnp.max(jnp.abs(residual)) > _TOLERANCE / 10) & (step < _MOST_STEPS)

    def improved(state: tuple[Array, ...]) -> tuple[Array, ...]:
        x, residual, direction, size, step = state
        image = applied(direction)
        curvature = dot(direction, image)
        # Frames without anything removed, and those that are solved, have no direction left.
        length = jnp.where(curvature > 0, size / jnp.where(curvature > 0, curvature, 1), 0)
        x, residual = x + length * direction, residual - length * image
        new = dot(residual, residual)
        turn = jnp.where(size > 0, new / jnp.where(size > 0, size, 1), 0)
        return x, residual, residual + turn * direction, new, step + 1

    state = x, residual, residual, dot(residual, residual), 0
    x = jax.lax.while_loop(going, improved, state)[0]
    return jnp.where(removed, x, frames)


def _neighbours(x: Array) -> Array:
    """Returns the weighted sum of every pixel's eight neighbours; outside there are none."""
    # The 3 x 3 weights are [1 2 1] down times [1 2 1] across over 12, without the centre's 4/12.
    both = x
    for axis in (2, 3):
        width = [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)]
        size = x.shape[axis]
        padded = jnp.pad(both, width)
        before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
        after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
        both = before + 2 * both + after
    return (both - 4 * x) / 12
