"""Max-pooling of windows 3 wide, 2 apart, from 1 before the start, with its gradient by hand."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Returns the maxima of windows 3 wide, 2 apart, from 1 before the start, of [N, ..., C].

    Of equal values the first has the gradient, as in torch.
    """
    return maxima(x)[0]


def _forward(x):
    values, places = maxima(x)
    return values, (places, x)


def _backward(kept, gradient):
    places, x = kept
    return (spread(gradient, places, x).astype(x.dtype),)


max_pool.defvjp(_forward, _backward)


def maxima(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the maxima of `max_pool`, and their places in the windows, uint8, for `spread`."""

    def reduced(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = _reduced(x)
        return values, jnp.zeros(values.shape, jnp.uint8)  # its gradient searches x again

    axes = range(1, x.ndim - 1)
    return jax.lax.platform_dependent(
        x,
        tpu=reduced,
        # A CPU computes the comparisons of one step again wherever the maxima are read.
        cpu=lambda x: _compared(x, [(axis,) for axis in reversed(axes)]),
        default=lambda x: _compared(x, [axes]),
    )


def spread(gradient: jax.Array, places: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the sums of what the windows send to their maxima, float32 [N, ..., C].

    Args:
      gradient: float, of the windows.
      places: of `maxima`.
      x: what the maxima are of; only a TPU reads it.
    """

    def searched(gradient: jax.Array, places: jax.Array, x: jax.Array) -> jax.Array:
        return jax.vjp(_reduced, x)[1](gradient.astype(x.dtype))[0].astype(jnp.float32)

    return jax.lax.platform_dependent(gradient, places, x, tpu=searched, default=_gathered)


def _reduced(x: jax.Array) -> jax.Array:
    """Returns the maxima as TPUs are built to find them."""
    axes = x.ndim - 2
    around = [(0, 0), *((1, 1),) * axes, (0, 0)]
    window, strides = ((1, *(size,) * axes, 1) for size in (3, 2))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, around)


def _compared(x: jax.Array, steps: Sequence[Sequence[int]]) -> tuple[jax.Array, jax.Array]:
    """Returns `maxima` by slices: over the axes of the first step, of the next, and so on.

    A place counts pixels: 3 * row + column, or 9 * frame + 3 * row + column.
    """
    last, best, places = x.ndim - 2, x, jnp.zeros(x.shape, jnp.uint8)
    for axes in steps:
        edge = [(0, 0, 0)] * x.ndim
        stop, strides = list(best.shape), [1] * x.ndim
        for axis in axes:
            size = best.shape[axis]
            stop[axis], strides[axis] = (size + 1) // 2 * 2 - 1, 2
            edge[axis] = (1, stop[axis] + 1 - size, 0)
        values = jax.lax.pad(best, jnp.array(-jnp.inf, x.dtype), edge)
        before = jax.lax.pad(places, jnp.uint8(0), edge)
        best = None
        for offset in itertools.product(range(3), repeat=len(axes)):
            start, end = [0] * x.ndim, list(stop)
            for axis, shift in zip(axes, offset, strict=True):
                start[axis], end[axis] = shift, stop[axis] + shift
            value, place = (jax.lax.slice(a, start, end, strides) for a in (values, before))
            here = sum(n * 3 ** (last - axis) for axis, n in zip(axes, offset, strict=True))
            place = place + jnp.uint8(here)
            if best is None:
                best, places = value, place
            else:
                better = (value > best) | jnp.isnan(value)
                best, places = jnp.where(better, value, best), jnp.where(better, place, places)
    return best, places


def _gathered(gradient: jax.Array, places: jax.Array, x: jax.Array) -> jax.Array:
    """Returns `spread`; every pixel looks which of its windows it is the maximum of.

    Along an axis a pixel lies in one window or, between two, in both. Pixels [N, h, w, C] are taken
    as [N, h / 2, 2, w / 2, 2, C]: of a pair the first lies in the middle of its window, the second
    at its end and at the start of the next window.
    """
    sizes, windows = x.shape[1:-1], gradient.shape[1:-1]
    axes = len(sizes)
    pairs = [2 * axis + 2 for axis in range(axes)]
    total = 0
    for ahead in itertools.product(range(2), repeat=axes):
        wanted = jnp.zeros((1,) * (2 * axes + 2), jnp.int32)
        for shift, pair in zip(ahead, pairs, strict=True):
            # 255: the first of a pair is not in the next window.
            along = jnp.array([255, 0] if shift else [1, 2], jnp.int32)
            others = [axis for axis in range(wanted.ndim) if axis != pair]
            wanted = 3 * wanted + jnp.expand_dims(along, others)
        edge = [(0, 0, 0), *((-shift, shift, 0) for shift in ahead), (0, 0, 0)]
        sent, place = (
            jnp.expand_dims(jax.lax.pad(each, jnp.zeros((), each.dtype), edge), pairs)
            for each in (gradient.astype(jnp.float32), places.astype(jnp.int32))
        )
        total += jnp.where(place == wanted, sent, 0)
    whole = total.reshape(len(x), *(2 * n for n in windows), x.shape[-1])
    return jax.lax.slice(whole, (0,) * whole.ndim, x.shape)
