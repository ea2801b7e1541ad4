"""Parts of a video transformer: MLP, patch embedding, stochastic depth."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aver_jax.models.gradient_rules import TRUE, GradientRules
from aver_jax.models.layers import Dense, Normed

INIT_STD = 0.02


def normal_init(std: float) -> nn.initializers.Initializer:
    """Returns a truncated normal initializer of standard deviation std, zeros for 0."""
    if not std:
        return nn.initializers.zeros
    # The official code truncates at an absolute 2.0, which leaves the deviation at .02; a cut at
    # two deviations would shrink it to .0176.
    return nn.initializers.truncated_normal(std, lower=-5.0, upper=5.0)


# torch's default for a convolution, uniform within 1/sqrt(fan in), which the official code keeps.
_patch_weights = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=(0, 1, 2), out_axis=3
)


def dense(features: int, dtype: Any, name: str, std: float) -> Dense:
    """Returns a dense layer computed in dtype, its weights of deviation std, its bias 0."""
    return Dense(features, dtype=dtype, kernel_init=normal_init(std), name=name)


def scaled(x: jax.Array, factor: jax.Array | None) -> jax.Array:
    """Multiplies x [A, ..., D] by factor, which has x's leading axes."""
    if factor is None:
        return x
    return x * factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim)).astype(x.dtype)


class Mlp(nn.Module):
    """Dense, exact GELU, dense."""

    hidden: int
    dtype: Any
    init_std: float = INIT_STD
    rules: GradientRules = TRUE

    @nn.compact
    def __call__(self, x: jax.Array | Normed) -> jax.Array:
        """Maps x [..., D] to [..., D]."""
        hidden = dense(self.hidden, self.dtype, "fc1", self.init_std)(x)
        return dense(x.shape[-1], self.dtype, "fc2", self.init_std)(self.rules.gelu(hidden))


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel, as one matrix product."""

    width: int
    patch_size: int
    dtype: Any

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        """Maps frames [B, T, H, W, C] to patches [B, T, N, D], N row by row."""
        size, channels = self.patch_size, frames.shape[-1]
        kernel = self.param("kernel", _patch_weights, (size, size, channels, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        batch, length, height, width, _ = frames.shape
        grid = (height // size, width // size)
        pixels = frames.astype(self.dtype)
        pixels = pixels.reshape(batch, length, grid[0], size, grid[1], size, channels)
        pixels = pixels.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, length, grid[0] * grid[1], -1)
        out = pixels @ kernel.astype(self.dtype).reshape(-1, self.width)
        return out + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def drop_factors(
    keys: jax.Array, rates: np.ndarray, sites: Mapping[str, tuple[int, ...]]
) -> dict[str, jax.Array]:
    """Returns the factors of stochastic depth (Huang et al. 2016), 0 or 1/(1 - rate).

    Args:
      keys: typed PRNG keys [B]; row b of a factor depends on keys[b] alone.
      rates: float32 [L], the probability of dropping by layer.
      sites: {name: shape per example} of the places in a layer that are dropped on their own.

    Returns:
      {name: float32 [L, B, *shape]}.
    """

    def factor(
        layer: jax.Array, rate: jax.Array, key: jax.Array, site: int, shape: tuple[int, ...]
    ) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, layer), site)
        return jax.random.bernoulli(key, 1 - rate, shape) / (1 - rate)

    factors = {}
    for site, (name, shape) in enumerate(sites.items()):
        of_clip = functools.partial(factor, site=site, shape=shape)
        of_batch = jax.vmap(of_clip, in_axes=(None, None, 0))
        of_stack = jax.vmap(of_batch, in_axes=(0, 0, None))
        factors[name] = of_stack(jnp.arange(len(rates)), rates, keys)
    return factors


def checked_keys(
    keys: jax.Array | None, batch: int, purpose: str = "stochastic depth"
) -> jax.Array:
    """Returns keys; ValueError, naming the purpose, unless they are typed PRNG keys [batch]."""
    found = "none" if keys is None else f"{keys.dtype} {keys.shape}"
    if (
        keys is None
        or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
        or keys.shape != (batch,)
    ):
        raise ValueError(
            f"{purpose} needs typed PRNG keys of shape ({batch},), one per clip, "
            f"found {found}; pass keys=jax.random.split(key, {batch}), or train=False"
        )
    return keys
