"""Batch normalisation of a training batch as a function, with its gradient by hand.

Everything that is as large as the batch is read as seldom as XLA's fusions allow: once for both
moments, once for the result; and in the backward pass once for both sums, once for the gradient.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aver_jax.models.functions import along_last
from aver_jax.models.max_pool import maxima, spread


class Options(NamedTuple):
    """What is static in `normalized_batch`.

    Fields:
      epsilon: added to the variance.
      relu: whether negative results become 0.
      pool: whether only the maxima of `max_pool`'s windows are left.
      axis_name: mapped axis whose devices share their moments, or None.
      dtype: of the result.
    """

    epsilon: float
    relu: bool
    pool: bool
    axis_name: str | None
    dtype: Any


class Moments(NamedTuple):
    """Moments of the rows that count, on all devices.

    Fields:
      count: float32 [], values per channel.
      mean: float32 [D].
      shift, apart: float32 [D]; the mean is shift + apart, more exactly than one number can say.
        They are each device's own.
      centred: float32 [D], the sum of squares about the mean.
    """

    count: jax.Array
    mean: jax.Array
    shift: jax.Array
    apart: jax.Array
    centred: jax.Array


class _Kept(NamedTuple):
    """What the backward pass of `normalized_batch` needs.

    Fields:
      x, scale, bias, mask: arguments.
      picked, places: of `maxima`, with `pool`.
      shown: the result, where that alone tells what ReLU let through.
      kind: of the dtype of `added`, None without it.
      shift, apart: of the mean, see `Moments`.
      inverse, factor, offset: float32 [D]; the result is (x - shift) * factor + offset, and factor
        is inverse * scale.
      count: of `Moments`.
    """

    x: jax.Array
    picked: jax.Array | None
    places: jax.Array | None
    shown: jax.Array | None
    kind: jax.Array | None
    shift: jax.Array
    apart: jax.Array
    inverse: jax.Array
    factor: jax.Array
    offset: jax.Array
    scale: jax.Array | None
    bias: jax.Array | None
    count: jax.Array
    mask: jax.Array | None


def centred_affine(
    x: jax.Array,
    mean: jax.Array,
    factor: jax.Array,
    bias: jax.Array,
) -> jax.Array:
    """Returns (x - mean) * factor + bias in float32, x [..., D] and vectors [D]."""
    # Not x * factor + offset: that loses the digits of a mean far from 0.
    y = (x.astype(jnp.float32) - along_last(mean, x)) * along_last(factor, x)
    return y + along_last(bias, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalized_batch(
    options: Options,
    x: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    added: jax.Array | None,
    running: tuple[jax.Array, jax.Array],
    mask: jax.Array | None,
    near: jax.Array | None,
) -> tuple[jax.Array, Moments]:
    """Normalises a batch by its own moments, or by running ones where it has fewer than 2 values.

    Args:
      options: see `Options`.
      x: float [N, ..., D].
      scale, bias: float32 [D], or None for 1 and 0; with `pool` no scale is negative.
      added: float [N, ..., D], added to the normalised x; or None.
      running: mean and variance, float32 [D].
      mask: bool [N], the rows that count in the moments; or None for all.
      near: of `batch_moments`.

    Returns:
      The result [N, ..., D], masked rows too, and the moments, through which no gradient flows.
    """
    return _forward(options, x, scale, bias, added, running, mask, near)[0]


def _forward(options, x, scale, bias, added, running, mask, near):
    moments = batch_moments(x, mask, options.axis_name, near)
    enough = moments.count > 1
    shift = jnp.where(enough, moments.shift, running[0])
    apart = jnp.where(enough, moments.apart, 0)
    var = jnp.where(enough, moments.centred / jnp.maximum(moments.count, 1), running[1])
    inverse = jax.lax.rsqrt(var + options.epsilon)
    factor = inverse if scale is None else inverse * scale
    offset = -apart * factor if bias is None else bias - apart * factor
    picked = places = None
    if options.pool:
        # Of x, which the gradient needs: the largest gives the largest result.
        picked, places = maxima(x)
    read = x if picked is None else picked
    y = centred_affine(read, shift, factor, offset)
    y = y if added is None else y + added.astype(jnp.float32)
    y = (jax.nn.relu(y) if options.relu else y).astype(options.dtype)
    # The sign of the result tells what relu let through; without `added` x tells it too.
    shown = y if options.relu and added is not None else None
    kept = _Kept(
        x=x,
        picked=picked,
        places=places,
        shown=shown,
        kind=None if added is None else jnp.zeros((), added.dtype),
        shift=shift,
        apart=apart,
        inverse=inverse,
        factor=factor,
        offset=offset,
        scale=scale,
        bias=bias,
        count=moments.count,
        mask=mask,
    )
    return (y, moments), kept


def _backward(options, kept, cotangents):
    x, gradient = kept.x, cotangents[0]
    axes = tuple(range(x.ndim - 1))
    read = x if kept.picked is None else kept.picked
    if options.relu:
        seen = kept.shown
        if seen is None:
            seen = centred_affine(read, kept.shift, kept.factor, kept.offset)
        gradient = jnp.where(seen > 0, gradient, 0)
    summed = gradient.astype(jnp.float32)
    product = summed * (read.astype(jnp.float32) - along_last(kept.shift, x))
    if kept.mask is not None:
        # A masked row whose result nobody uses may hold anything.
        product = jnp.where(summed == 0, 0, product)
    of_offset = summed.sum(axes)
    of_inverse = product.sum(axes) - kept.apart * of_offset
    sums = jnp.concatenate([of_offset, of_inverse])
    if _shared(options.axis_name):
        sums = jax.lax.psum(sums, options.axis_name)
    slope = jnp.where(kept.count > 1, sums / jnp.maximum(kept.count, 1), 0)
    slope, curve = jnp.split(slope, 2)
    curve *= jnp.square(kept.inverse)
    direct = summed if kept.picked is None else spread(gradient, kept.places, x)
    # Less slope + curve * (x - mean). One after the other: where all rows have about the same
    # gradient, the first difference is exact.
    of_x = direct - along_last(slope - curve * kept.apart, x)
    of_x -= along_last(curve, x) * (x.astype(jnp.float32) - along_last(kept.shift, x))
    if kept.mask is not None:
        of_x = jnp.where(_per_row(kept.mask, x), of_x, direct)
    of_x *= along_last(kept.factor, x)
    return (
        of_x.astype(x.dtype),
        None if kept.scale is None else of_inverse * kept.inverse,
        None if kept.bias is None else of_offset,
        None if kept.kind is None else gradient.astype(kept.kind.dtype),
        None,
        None,
        None,
    )


normalized_batch.defvjp(_forward, _backward)


def batch_moments(
    x: jax.Array, mask: jax.Array | None, axis_name: str | None, near: jax.Array | None = None
) -> Moments:
    """Returns the moments of the unmasked rows.

    The devices' moments are gathered and combined (Chan, Golub & LeVeque, 1979): one exchange, and
    no difference of large squares.

    Args:
      x: float [N, ..., D].
      mask: bool [N] or None.
      axis_name: mapped axis whose devices are combined, or None.
      near: float32 [D], what the sums are about, such as `pixel_mean`, the default. The further it
        is from the mean in standard deviations, the fewer digits the moments have.

    Raises:
      ValueError: a mask that is not bool [N].
    """
    own = _own_moments(x, mask, near)
    if not _shared(axis_name):
        return own
    size = x.shape[-1]
    packed = jnp.concatenate([own.count[None], own.shift, own.apart, own.centred])
    all_packed = jax.lax.all_gather(packed, axis_name)
    counts = all_packed[:, :1]
    shifts, aparts, centreds = jnp.split(all_packed[:, 1:], [size, 2 * size], axis=1)
    count = counts.sum()
    share = counts / jnp.maximum(count, 1)
    mean = (share * (shifts + aparts)).sum(0)
    # Of the means, from this device's shift.
    distances = (shifts - own.shift[None]) + aparts
    apart = (share * distances).sum(0)
    centred = (centreds + counts * jnp.square(distances - apart[None])).sum(0)
    return Moments(count, mean, own.shift, apart, centred)


def pixel_mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns the mean of the middle pixel over the unmasked rows of x [N, ..., D], float32 [D].

    It lies sqrt(P) standard deviations from the mean of all P pixels at most.
    """
    return row_mean(x[(slice(None), *(size // 2 for size in x.shape[1:-1]))], mask)


def row_mean(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns the mean over the unmasked rows of x [N, ...], float32 [...]; 0 without any."""
    x = x.astype(jnp.float32)
    if mask is None:
        return x.mean(0)
    return jnp.where(_per_row(mask, x), x, 0).sum(0) / jnp.maximum(mask.sum(), 1)


def _own_moments(x: jax.Array, mask: jax.Array | None, near: jax.Array | None) -> Moments:
    """Returns the moments of one device's rows."""
    axes = tuple(range(x.ndim - 1))
    rows = jnp.float32(len(x)) if mask is None else mask.sum(dtype=jnp.float32)
    count = rows * math.prod(x.shape[1:-1])
    # One read makes both sums. About a shift near the mean their difference keeps its digits.
    shift = pixel_mean(x, mask) if near is None else near
    moved = x.astype(jnp.float32) - along_last(shift, x)
    if mask is not None:
        moved = jnp.where(_per_row(mask, x), moved, 0)
    some = jnp.maximum(count, 1)
    apart = moved.sum(axes) / some
    centred = jnp.maximum(jnp.square(moved).sum(axes) - some * jnp.square(apart), 0)
    return Moments(count, shift + apart, shift, apart, centred)


def _per_row(mask: jax.Array, x: jax.Array) -> jax.Array:
    if mask.shape != x.shape[:1] or mask.dtype != bool:
        raise ValueError(
            f"mask is {mask.dtype} {mask.shape}, expected bool {x.shape[:1]}, one per row"
        )
    return mask.reshape(-1, *(1,) * (x.ndim - 1))


def _shared(axis_name: str | None) -> bool:
    return axis_name is not None and jax.lax.axis_size(axis_name) > 1
