"""Batch normalisation whose statistics are those of the whole batch, over all devices.

flax's own averages per-device means when examples are masked, which weighs them wrongly, and keeps
a biased running variance where torch keeps the unbiased one.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015; torch's BatchNorm).

    The collection "batch_stats" has the running `mean` and `var`, float32 [D], the variance
    unbiased; the parameters are `scale` and `bias`, float32 [D].

    Fields:
      use_scale, use_bias: whether there are a learned scale and bias.
      decay: of the running statistics (torch's 1 - momentum).
      epsilon: added to the variance.
      axis_name: mapped axis over whose devices statistics are taken in training; None: no map.
      dtype: of the result; statistics are float32.
    """

    use_scale: bool = True
    use_bias: bool = True
    decay: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalise x.

        Args:
          x: [N, ..., D].
          train: whether by the statistics of this batch, which then move the running ones, or by
            the running ones; static.
          mask: bool [N], the rows that count; all by default. The others are normalised as well.

        Returns:
          An array of x's shape, in `dtype`.
        """
        width = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (width,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (width,), jnp.float32)
        centre, variance = mean.value, var.value
        if train:
            count, centre, variance = _statistics(x.astype(jnp.float32), mask, self.axis_name)
            if not self.is_initializing():
                # A batch without a row that counts leaves the running statistics as they are.
                rate = jnp.where(count > 0, 1 - self.decay, 0.0)
                unbiased = variance * (count / jnp.maximum(count - 1, 1))
                mean.value += rate * (jax.lax.stop_gradient(centre) - mean.value)
                var.value += rate * (jax.lax.stop_gradient(unbiased) - var.value)
        factor = jax.lax.rsqrt(variance + self.epsilon)
        if self.use_scale:
            factor *= self.param("scale", nn.initializers.ones, (width,), jnp.float32)
        last = (1,) * (x.ndim - 1) + (width,)
        y = (x.astype(jnp.float32) - centre.reshape(last)) * factor.reshape(last)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (width,), jnp.float32).reshape(last)
        return y.astype(self.dtype)


def feature_norm(axis_name: str | None, dtype: Any, name: str) -> BatchNorm:
    """Return the thesis' FeatureNorm: batch normalisation without learned scale and bias."""
    return BatchNorm(use_scale=False, use_bias=False, axis_name=axis_name, dtype=dtype, name=name)


def _statistics(
    x: jax.Array, mask: jax.Array | None, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the count float32 [], mean and biased variance [D] of the rows that count.

    Each device centres its own values, and the devices' (count, mean, squared deviations) are put
    together exactly (Chan et al. 1979): a sum of squares about zero would lose the digits of a
    variance that is small beside the mean.
    """
    axes, inner = tuple(range(x.ndim - 1)), math.prod(x.shape[1:-1])
    if mask is None:
        count = jnp.float32(x.shape[0] * inner)
        mean = x.mean(axes)
        squares = jnp.square(x - mean.reshape((1,) * len(axes) + (-1,))).sum(axes)
    else:
        rows = mask.reshape(-1, *(1,) * (x.ndim - 1))
        count = mask.sum(dtype=jnp.float32) * inner
        mean = jnp.where(rows, x, 0).sum(axes) / jnp.maximum(count, 1)
        centred = jnp.where(rows, x - mean.reshape((1,) * len(axes) + (-1,)), 0)
        squares = jnp.square(centred).sum(axes)
    if axis_name is not None:
        # One collective of 2 D + 1 numbers from each device.
        gathered = jax.lax.all_gather(jnp.concatenate([count[None], mean, squares]), axis_name)
        counts, means, deviations = (
            gathered[:, :1],
            gathered[:, 1 : 1 + mean.shape[0]],
            gathered[:, 1 + mean.shape[0] :],
        )
        count = counts.sum()
        mean = (counts * means).sum(0) / jnp.maximum(count, 1)
        squares = (deviations + counts * jnp.square(means - mean[None])).sum(0)
    return count, mean, squares / jnp.maximum(count, 1)
