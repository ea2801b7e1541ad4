"""Batch normalisation that is exact over devices and masks (Ioffe & Szegedy, 2015)."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.batch_norm import Moments, Options, centred_affine, normalized_batch
from aver_jax.models.max_pool import max_pool

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
      relu: whether negative results become 0.
      pool: whether only the maxima of `max_pool`'s windows are left.
      axis_name: mapped axis whose devices share their statistics in training.
      dtype: of the result; statistics and parameters are float32.
    """

    use_scale: bool = True
    use_bias: bool = True
    decay: float = 0.9
    epsilon: float = 1e-5
    relu: bool = False
    pool: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def __call__(
        self,
        x: jax.Array,
        train: bool,
        mask: jax.Array | None = None,
        added: jax.Array | None = None,
        near: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises a batch.

        Args:
          x: float [N, ..., D].
          train: whether the statistics are those of this batch, and move the running ones; static.
          mask: bool [N], the rows that count in the statistics; all of them by default.
          added: float [N, ..., D], added to the normalised x, before the ReLU.
          near: float32 [D], about where the mean of the unmasked rows is, see `batch_moments`.

        Returns:
          Like x, in `dtype`; masked rows are normalised too.

        Raises:
          ValueError: a mask that is not bool [N].
        """
        if not train:
            return self.finished(centred_affine(x, *self.running(x.shape[-1])), added)
        mean, var, scale, bias = self._held(x.shape[-1])
        options = Options(self.epsilon, self.relu, self.pool, self.axis_name, self.dtype)
        sign = self.sign(x.shape[-1]) if self.pool else 1
        scale = scale * sign if self.pool and scale is not None else scale
        running = (mean.value * sign, var.value)
        arguments = (x, scale, bias, added, running, mask, near)
        together = functools.partial(normalized_batch, options)
        if self.pool:
            apart = functools.partial(_normalized_then_pooled, options)
            y, moments = jax.lax.platform_dependent(*arguments, cpu=apart, default=together)
        else:
            y, moments = together(*arguments)
        if not self.is_initializing():
            step = jnp.where(moments.count > 1, 1 - self.decay, 0)
            unbiased = moments.centred / jnp.maximum(moments.count - 1, 1)
            mean.value += step * (moments.mean * sign - mean.value)
            var.value += step * (unbiased - var.value)
        return y

    def running(self, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns mean, factor and bias of `centred_affine` in evaluation, of `size` channels.

        What follows it is `finished`.
        """
        mean, var, scale, bias = self._held(size)
        factor = jax.lax.rsqrt(var.value + self.epsilon)
        factor = factor if scale is None else factor * scale
        return mean.value, factor, jnp.zeros(size) if bias is None else bias

    def sign(self, size: int) -> jax.Array:
        """Returns -1 where the scale of `size` channels D is negative, else 1, float32 [D]."""
        scale = self._held(size)[2]
        return jnp.ones(size) if scale is None else jnp.where(scale < 0, -1.0, 1.0)

    def finished(self, y: jax.Array, added: jax.Array | None) -> jax.Array:
        """Returns what follows the normalised y [N, ..., D]: sum, ReLU, maxima, in `dtype`."""
        y = y if added is None else y + added.astype(y.dtype)
        y = (nn.relu(y) if self.relu else y).astype(self.dtype)
        return max_pool(y) if self.pool else y

    @nn.compact
    def _held(self, size: int):
        """Returns the statistics as variables and the parameters, [D] or None."""
        mean = self.variable(STATISTICS, "mean", jnp.zeros, (size,), jnp.float32)
        var = self.variable(STATISTICS, "var", jnp.ones, (size,), jnp.float32)
        scale = bias = None
        if self.use_scale:
            scale = self.param("scale", nn.initializers.ones, (size,), jnp.float32)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (size,), jnp.float32)
        return mean, var, scale, bias


def _normalized_then_pooled(options: Options, *arguments: Any) -> tuple[jax.Array, Moments]:
    """Returns `normalized_batch` with `pool`, in two steps: the faster way of CPUs."""
    y, moments = normalized_batch(options._replace(pool=False), *arguments)
    return max_pool(y), moments


def feature_norm(axis_name: str | None, dtype: Any, name: str) -> BatchNorm:
    """Returns the thesis' FeatureNorm: batch normalisation without parameters (Chang 2021, 5.2)."""
    return BatchNorm(use_scale=False, use_bias=False, axis_name=axis_name, dtype=dtype, name=name)
