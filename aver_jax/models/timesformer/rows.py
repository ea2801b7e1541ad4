"""Frames as rows of tokens, with a copy of the clip's cls token before each.

Attention over space is along a row, over time from row to row, and no array changes its order.
"""

import functools

import jax
import jax.numpy as jnp


def frame_rows(tokens: jax.Array, frames: int) -> jax.Array:
    """Returns rows [B*T, 1+N, D], a copy of cls before each, of tokens [B, 1 + N*T, D]."""
    batch, _, width = tokens.shape
    cls = jnp.broadcast_to(tokens[:, None, :1], (batch, frames, 1, width))
    patches = tokens[:, 1:].reshape(batch, -1, frames, width).swapaxes(1, 2)
    return jnp.concatenate([cls, patches], axis=2).reshape(batch * frames, -1, width)


def clip_tokens(rows: jax.Array, frames: int) -> jax.Array:
    """Returns [cls, then p*T + t], [B, 1 + N*T, D], of rows [B*T, 1+N, D]."""
    width = rows.shape[-1]
    rows = rows.reshape(-1, frames, *rows.shape[1:])
    patches = rows[:, :, 1:].swapaxes(1, 2).reshape(len(rows), -1, width)
    return jnp.concatenate([rows[:, 0, :1], patches], axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def add_to_patches(
    x: jax.Array, out: jax.Array, of_cls: jax.Array | None, frames: int
) -> jax.Array:
    """Returns x + out [B*T, 1+N, D], but for the copies of cls.

    All copies of a clip's get the mean of what its frames give theirs, or stay as they are.

    Args:
      x, out: [B*T, 1+N, D].
      of_cls: `out[:, 0]` [B*T, D] without a gradient, which the result's goes to `out` for; or
        None: the copies stay as they are. Where it is computed from less than the whole of `out`,
        a compiler can make the sum part of the product that gives `out`.
      frames: T.
    """
    mean = jnp.zeros_like(x[:, 0]) if of_cls is None else _mean_of_frames(of_cls, frames)
    return jax.lax.platform_dependent(x, out, mean, cuda=_written, default=_selected)


def _selected(x: jax.Array, out: jax.Array, of_cls: jax.Array) -> jax.Array:
    return jnp.where(_is_cls(x), (x[:, 0] + of_cls)[:, None], x + out)


def _written(x: jax.Array, out: jax.Array, of_cls: jax.Array) -> jax.Array:
    # A product of cuBLASLt adds x for nothing, if nothing but the sum is read, and writes the sum
    # in x's place, if cls has been read before.
    x, cls = jax.lax.optimization_barrier((x, x[:, 0]))
    return (x + out).at[:, 0].set(cls + of_cls)


def _add_to_patches_backward(frames, has_mean, gradient):
    of_cls = gradient[:, 0]
    given = _mean_of_frames(of_cls, frames) if has_mean else jnp.zeros_like(of_cls)
    of_out = jnp.where(_is_cls(gradient), given[:, None], gradient)
    return gradient, of_out, jnp.zeros_like(of_cls) if has_mean else None


add_to_patches.defvjp(
    lambda x, out, of_cls, frames: (add_to_patches(x, out, of_cls, frames), of_cls is not None),
    _add_to_patches_backward,
)


def _mean_of_frames(cls: jax.Array, frames: int) -> jax.Array:
    """Returns [B*T, D]: for every frame the mean over its clip's of cls [B*T, D]."""
    of_frames = cls.reshape(-1, frames, cls.shape[-1])
    mean = of_frames.mean(axis=1, keepdims=True)
    return jnp.broadcast_to(mean, of_frames.shape).reshape(cls.shape)


def _is_cls(x: jax.Array) -> jax.Array:
    """Returns bool [1, 1+N, 1], which tokens of x [B*T, 1+N, D] are copies of the cls token."""
    return (jnp.arange(x.shape[1]) == 0)[None, :, None]
