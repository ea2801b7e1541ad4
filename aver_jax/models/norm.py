"""Batch normalisation that is exact over devices and masks (Ioffe & Szegedy, 2015)."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.functions import along_last

STATISTICS = "batch_stats"


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with the numbers of torch.nn.BatchNorm.

    In training the statistics are those of the unmasked rows on all devices of `axis_name`, as if
    one device held them; the running variance is unbiased, as torch's. Fewer than two values per
    channel have no variance (torch refuses them): the running statistics serve and stay. They are
    the collection "batch_stats": "mean" and "var", float32 [D].

    Fields:
      use_scale, use_bias: whether the result is multiplied by a learned scale [D] (initially 1),
        and a learned bias [D] (initially 0) is added.
      decay: the share of the running statistics that a step keeps; 1 - torch's momentum.
      epsilon: added to the variance.
      axis_name: mapped axis whose devices share their statistics in training.
      dtype: of the result; statistics and parameters are float32.
    """

    use_scale: bool = True
    use_bias: bool = True
    decay: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalises a batch.

        Args:
          x: float [N, ..., D].
          train: whether the statistics are those of this batch, and move the running ones; static.
          mask: bool [N], the rows that count in the statistics; all of them by default.

        Returns:
          Like x, in `dtype`; masked rows are normalised too.

        Raises:
          ValueError: a mask that is not bool [N].
        """
        size = x.shape[-1]
        mean = self.variable(STATISTICS, "mean", jnp.zeros, (size,), jnp.float32)
        var = self.variable(STATISTICS, "var", jnp.ones, (size,), jnp.float32)
        x = x.astype(jnp.float32)
        used_mean, used_var = mean.value, var.value
        if train:
            count, batch_mean, centred = batch_moments(x, mask, self.axis_name)
            enough = count > 1
            used_mean = jnp.where(enough, batch_mean, used_mean)
            used_var = jnp.where(enough, centred / jnp.maximum(count, 1), used_var)
            if not self.is_initializing():
                step = jnp.where(enough, 1 - self.decay, 0)
                mean.value += step * (batch_mean - mean.value)
                var.value += step * (centred / jnp.maximum(count - 1, 1) - var.value)
        factor = jax.lax.rsqrt(used_var + self.epsilon)
        if self.use_scale:
            factor *= self.param("scale", nn.initializers.ones, (size,), jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (size,), jnp.float32)
        y = _normalized(x, used_mean, factor, bias)
        return y.astype(self.dtype)


# The backward pass computes x - mean again: a difference is cheaper than a copy of x in memory.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _normalized(
    x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array | None
) -> jax.Array:
    """Returns (x - mean) * factor + bias of x [..., D] and vectors [D]."""
    # Not x * factor + offset: that loses the digits of a mean far from 0.
    y = (x - along_last(mean, x)) * along_last(factor, x)
    return y if bias is None else y + along_last(bias, x)


def feature_norm(axis_name: str | None, dtype: Any, name: str) -> BatchNorm:
    """Returns the thesis' FeatureNorm: batch normalisation without parameters (Chang 2021, 5.2)."""
    return BatchNorm(use_scale=False, use_bias=False, axis_name=axis_name, dtype=dtype, name=name)


def batch_moments(
    x: jax.Array, mask: jax.Array | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns count [], mean [D] and centred sum of squares [D] of the unmasked rows.

    Every device centres on its own mean, and the devices' moments are gathered and combined (Chan,
    Golub & LeVeque, 1979): one exchange, and no difference of large squares. A sum of squares
    over a psum could not be that: it would need the common mean, an exchange earlier.

    Args:
      x: float32 [N, ..., D].
      mask: bool [N] or None.
      axis_name: mapped axis whose devices are combined, or None.
    """
    per_row = math.prod(x.shape[1:-1])
    valid = None
    if mask is None:
        count = jnp.float32(x.shape[0] * per_row)
    else:
        if mask.shape != x.shape[:1] or mask.dtype != bool:
            raise ValueError(
                f"mask is {mask.dtype} {mask.shape}, expected bool {x.shape[:1]}, one per row"
            )
        count = mask.sum(dtype=jnp.float32) * per_row
        valid = mask.reshape(-1, *(1,) * (x.ndim - 1))
    mean, centred = _local_moments(x, valid, count)
    if axis_name is None or jax.lax.axis_size(axis_name) == 1:
        return count, mean, centred
    counts, means, centreds = jax.lax.all_gather((count, mean, centred), axis_name)
    count, counts = counts.sum(), counts[:, None]
    mean = (counts * means).sum(0) / jnp.maximum(count, 1)
    centred = (centreds + counts * jnp.square(means - mean[None])).sum(0)
    return count, mean, centred


@jax.custom_vjp
def _local_moments(
    x: jax.Array, valid: jax.Array | None, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns mean [D] and centred sum of squares [D] of the valid rows of one device.

    Args:
      x: float32 [N, ..., D].
      valid: bool [N, 1, ...] or None.
      count: float32 [], values per channel.
    """
    axes = tuple(range(x.ndim - 1))
    rows = x if valid is None else jnp.where(valid, x, 0)
    mean = rows.sum(axes) / jnp.maximum(count, 1)
    deviation = rows - along_last(mean, x)
    if valid is not None:
        deviation = jnp.where(valid, deviation, 0)
    return mean, jnp.square(deviation).sum(axes)


def _local_moments_forward(x, valid, count):
    mean, centred = _local_moments(x, valid, count)
    return (mean, centred), (x, valid, count, mean)


def _local_moments_backward(residuals, cotangents):
    """Returns the chain rule by hand: nothing of the size of x is kept beside x."""
    x, valid, count, mean = residuals
    of_mean, of_centred = cotangents
    axes = tuple(range(x.ndim - 1))
    deviation = x - along_last(mean, x)
    if valid is not None:
        deviation = jnp.where(valid, deviation, 0)
    # 0 but for the rounding of the mean, which would show where the rest of the gradient is small.
    drift = 2 * of_centred * deviation.sum(axes)
    slope = along_last((of_mean - drift) / jnp.maximum(count, 1), x)
    gradient = slope + along_last(2 * of_centred, x) * deviation
    if valid is not None:
        gradient = jnp.where(valid, gradient, 0)
    return gradient, None, None


_local_moments.defvjp(_local_moments_forward, _local_moments_backward)
