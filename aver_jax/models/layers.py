"""Dense layer, LayerNorm, GELU and attention, their gradients written by hand.

Automatic differentiation keeps what a gradient could be computed from again more quickly than it is
read, and writes products and sums that XLA's CPU compiler is slow at. Of these functions the
backward pass needs the inputs alone, and of LayerNorm two numbers a row, of attention the softmax.
They are for reverse mode: `jax.jvp` refuses them. Parameters are float32.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

LAYER_NORM_EPSILON = 1e-6
# What a policy of jax.checkpoint calls the results of dense layers.
PRODUCT = "product"


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Return vector [D] with as many axes as x [..., D]."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


class Dense(nn.Module):
    """x @ kernel + bias over the last axis, as flax.linen.Dense, whose parameters it has.

    Fields:
      features: size of the result's last axis.
      dtype: of the product and the result; the parameters' gradients are summed in float32.
      kernel_init: initializer of `kernel` [D, features]; `bias` [features] starts at 0.
    """

    features: int
    dtype: Any
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., D] to [..., features]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return checkpoint_name(_affine(x.astype(self.dtype), kernel, bias), PRODUCT)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), with float32 statistics.

    Parameters `scale` and `bias`, float32 [D], as flax.linen.LayerNorm's; `dtype` is the result's.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise x [..., D]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return _layer_norm(x, scale, bias).astype(self.dtype)


@jax.custom_vjp
def _affine(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Return x @ kernel + bias [..., O], x [..., I]; kernel and bias are cast to x's dtype."""
    return x @ kernel.astype(x.dtype) + along_last(bias.astype(x.dtype), x)


def _affine_forward(x, kernel, bias):
    return _affine(x, kernel, bias), (x, kernel)


def _affine_backward(kept, gradient):
    x, kernel = kept
    rows = gradient.reshape(-1, gradient.shape[-1])
    of_kernel = jnp.matmul(x.reshape(-1, x.shape[-1]).T, rows, preferred_element_type=kernel.dtype)
    return gradient @ kernel.astype(x.dtype).T, of_kernel, _summed_rows(rows)


_affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Return float32 [..., D], x [..., D] centred and divided by its deviation, times scale."""
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x, scale, bias):
    wide = x.astype(jnp.float32)
    mean = _mean(wide)
    # Not E[x^2] - E[x]^2, which loses digits where the mean is large.
    variance = _mean(jnp.square(wide - mean))
    factor = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    normed = (wide - mean) * factor * along_last(scale, x) + along_last(bias, x)
    return normed, (x, mean, factor, scale)


def _layer_norm_backward(kept, gradient):
    x, mean, factor, scale = kept
    unit = (x.astype(jnp.float32) - mean) * factor
    of_unit = gradient * along_last(scale, x)
    of_x = factor * (of_unit - _mean(of_unit) - unit * _mean(of_unit * unit))
    size = x.shape[-1]
    of_scale = _summed_rows((gradient * unit).reshape(-1, size))
    return of_x.astype(x.dtype), of_scale, _summed_rows(gradient.reshape(-1, size))


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Return x * (1 + erf(x / sqrt 2)) / 2, in float32 inside and of x's dtype."""
    wide = x.astype(jnp.float32)
    return (wide * _normal_distribution(wide)).astype(x.dtype)


def _gelu_backward(x, gradient):
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * jnp.pi) ** -0.5
    slope = _normal_distribution(wide) + wide * density
    return ((slope * gradient).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def _normal_distribution(x: jax.Array) -> jax.Array:
    # jax.nn.gelu takes erfc, which keeps the digits of the far tail in bfloat16 too, by two
    # polynomials of which it selects one.
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


@jax.custom_vjp
def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array | None, probe: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Scaled dot-product attention (Vaswani et al. 2017).

    Args:
      q, k, v: [A, h, S, d], of one dtype.
      valid: bool [A, 1, 1, S], the keys that are attended to, or None for all.
      probe: float32 [A, h, S, S] and of no smaller shape, to add to the softmax; or None.

    Returns:
      weights @ v [A, h, S, d], and weights, float32 [A, h, S, S]: the softmax, and the probe.
    """
    return _attend_forward(q, k, v, valid, probe)[0]


def _attend_forward(q, k, v, valid, probe):
    scores = jnp.einsum("ahqd,ahkd->ahqk", q, k, preferred_element_type=jnp.float32)
    if valid is not None:
        scores = jnp.where(valid, scores, jnp.finfo(jnp.float32).min / 2)
    softmax = jax.nn.softmax(scores * q.shape[-1] ** -0.5, axis=-1)
    weights = softmax if probe is None else softmax + probe
    kept = (q, k, v, valid, probe, softmax.astype(q.dtype))
    return (weights.astype(q.dtype) @ v, weights), kept


def _attend_backward(kept, gradients):
    q, k, v, valid, probe, softmax = kept
    of_out, of_weights = gradients
    weights = softmax if probe is None else (softmax + probe).astype(q.dtype)
    of_v = _turned(weights) @ of_out
    of_weights += jnp.einsum("ahqd,ahkd->ahqk", of_out, v, preferred_element_type=jnp.float32)
    softmax = softmax.astype(jnp.float32)
    along = (of_weights * softmax).sum(-1, keepdims=True)
    of_scores = softmax * (of_weights - along) * q.shape[-1] ** -0.5
    if valid is not None:
        of_scores = jnp.where(valid, of_scores, 0)
    of_scores = of_scores.astype(q.dtype)
    of_probe = None if probe is None else of_weights
    return of_scores @ k, _turned(of_scores) @ q, of_v, None, of_probe


attend.defvjp(_attend_forward, _attend_backward)


def _turned(x: jax.Array) -> jax.Array:
    """Return x [A, h, S, T] as [A, h, T, S], on CPUs in memory."""
    # XLA would make the transpose part of the product, and CPUs are up to twice as slow at that.
    return jax.lax.platform_dependent(
        x.swapaxes(-1, -2), cpu=jax.lax.optimization_barrier, default=lambda turned: turned
    )


# A product with ones takes a CPU half the time of its reductions.
def _summed_rows(x: jax.Array) -> jax.Array:
    """Return the float32 sum [D] of the rows of x [N, D]."""

    def product(x: jax.Array) -> jax.Array:
        ones = jnp.ones((1, x.shape[0]), x.dtype)
        return jnp.matmul(ones, x, preferred_element_type=jnp.float32)[0]

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: x.sum(0, dtype=jnp.float32))


def _mean(x: jax.Array) -> jax.Array:
    """Return the mean [..., 1] over the last axis of x, float32 [..., D]."""

    def product(x: jax.Array) -> jax.Array:
        return x @ jnp.full((x.shape[-1], 1), 1 / x.shape[-1])

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: x.mean(-1, keepdims=True))
