"""Parts of a video transformer: capturable attention, MLP, patch embedding, stochastic depth."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aver_jax.models.custom_gradients import attend, gelu
from aver_jax.models.layers import Dense

INIT_STD = 0.02
ATTENTION_KERNELS = ("xla", "cudnn")


def normal_init(std: float) -> nn.initializers.Initializer:
    """Returns a truncated normal initializer of standard deviation std."""
    # The official code truncates at an absolute 2.0, which leaves the deviation at .02; a cut at
    # two deviations would shrink it to .0176.
    return nn.initializers.truncated_normal(std, lower=-5.0, upper=5.0)


# torch's default for a convolution, uniform within 1/sqrt(fan in), which the official code keeps.
_patch_weights = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=(0, 1, 2), out_axis=3
)


def dense(features: int, dtype: Any, name: str, std: float) -> Dense:
    """Returns a dense layer computed in dtype, its weights of deviation std, its bias 0."""
    init = normal_init(std) if std else nn.initializers.zeros
    return Dense(features, dtype=dtype, kernel_init=init, name=name)


def scaled(x: jax.Array, factor: jax.Array | None) -> jax.Array:
    """Multiplies x [A, ..., D] by factor, which has x's leading axes."""
    if factor is None:
        return x
    return x * factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim)).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over axis 1 of x [A, S, D]; `qkv` is [q|k|v], head-major.

    `kernel` computes what nobody looks into: one of `ATTENTION_KERNELS`.
    """

    num_heads: int
    dtype: Any
    init_std: float = INIT_STD
    kernel: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        explicit: bool = False,
        probe: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns the output [A, S, D] and, if explicit, the softmax, float32 [A, h, S, S].

        `lengths` int32 [A]: tokens from there on are not attended to (by default, all are).
        """
        batch, length, width = x.shape
        qkv = dense(3 * width, self.dtype, "qkv", self.init_std)(x)
        qkv = qkv.reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        # The gradient of a split is one concatenation; of three slices, a sum of padded arrays.
        q, k, v = (part.squeeze(2) for part in jnp.split(qkv, 3, axis=2))
        weights = None
        if self.kernel == "xla" or explicit:
            valid = None
            if lengths is not None:
                valid = jnp.arange(length)[None, None, None] < lengths[:, None, None, None]
            q, k, v = (part.swapaxes(1, 2) for part in (q, k, v))
            out, softmax = attend(q, k, v, valid, probe)
            out = out.swapaxes(1, 2)
            weights = softmax if explicit else None
        else:
            out = fused_attention(q, k, v, lengths, self.kernel)
        out = out.reshape(batch, length, width)
        return dense(width, self.dtype, "proj", self.init_std)(out), weights


def fused_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array | None, implementation: str
) -> jax.Array:
    """Returns attention [A, S, h, d] of q, k, v [A, S, h, d] by a kernel of jax.nn.

    cuDNN has no backward pass for lengths that 8 does not divide (197 tokens of a frame): rows are
    filled up, and what fills them is not attended to. Their own rows are cut off again, so that no
    gradient comes back through them.

    Args:
      q, k, v: bfloat16 for "cudnn".
      lengths: int32 [A], as in `Attention`.
      implementation: of `jax.nn.dot_product_attention`.

    Raises:
      ValueError: cuDNN is not installed, or does not do this.
    """
    length = q.shape[1]
    if fill := -length % 8:
        q, k, v = (jnp.pad(x, ((0, 0), (0, fill), (0, 0), (0, 0))) for x in (q, k, v))
        lengths = jnp.full(q.shape[0], length, jnp.int32) if lengths is None else lengths
    try:
        out = jax.nn.dot_product_attention(
            q, k, v, key_value_seq_lengths=lengths, implementation=implementation
        )
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"kernel {implementation!r} cannot be used here ({error}); it needs an NVIDIA GPU and "
            "cuDNN: use 'xla'"
        ) from error
    return out[:, :length]


class Mlp(nn.Module):
    """Dense, exact GELU, dense."""

    hidden: int
    dtype: Any
    init_std: float = INIT_STD

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [..., D] to [..., D]."""
        hidden = dense(self.hidden, self.dtype, "fc1", self.init_std)(x)
        return dense(x.shape[-1], self.dtype, "fc2", self.init_std)(gelu(hidden))


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel, as one matrix product."""

    width: int
    patch_size: int
    dtype: Any

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        """Maps frames [B, T, H, W, C] to patches [B, N, T, D], N row by row."""
        size, channels = self.patch_size, frames.shape[-1]
        kernel = self.param("kernel", _patch_weights, (size, size, channels, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        batch, length, height, width, _ = frames.shape
        grid = (height // size, width // size)
        pixels = frames.astype(self.dtype)
        pixels = pixels.reshape(batch, length, grid[0], size, grid[1], size, channels)
        pixels = pixels.transpose(0, 2, 4, 1, 3, 5, 6).reshape(batch, grid[0] * grid[1], length, -1)
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
