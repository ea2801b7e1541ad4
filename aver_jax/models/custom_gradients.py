"""The functions of `functions` with gradients written by hand; values are the same.

Automatic differentiation keeps what a gradient could be computed from again more quickly than it is
read, and writes products and sums that XLA's CPU compiler is slow at: sums over rows and products
with a transposed left side take 2 to 12 times as long as they need to. With these a training step
of TimeSformer-S takes 0.89 of the time on 2 CPU cores (419 to 374 ms at 8 x 64 x 64, batch 2;
docs/benchmarks/log.md), and a quarter less memory for the backward pass anywhere. The backward pass
needs the inputs alone, of LayerNorm two numbers a row as well, of attention the softmax. For
reverse mode alone: `jax.jvp` refuses them.
"""

import jax
import jax.numpy as jnp

from aver_jax.models import functions
from aver_jax.models.functions import (
    along_last,
    attention_softmax,
    layer_norm_statistics,
    mean_of_last,
    normal_distribution,
)

affine = jax.custom_vjp(functions.affine)
layer_norm = jax.custom_vjp(functions.layer_norm)
standardized = jax.custom_vjp(functions.standardized)
gelu = jax.custom_vjp(functions.gelu)
attend = jax.custom_vjp(functions.attend)
attend_with_map = jax.custom_vjp(functions.attend_with_map, nondiff_argnums=(6,))


def _affine_backward(kept, gradient):
    x, kernel, bias = kept
    rows = gradient.reshape(-1, gradient.shape[-1])
    of_kernel = jnp.matmul(x.reshape(-1, x.shape[-1]).T, rows, preferred_element_type=kernel.dtype)
    of_bias = None if bias is None else _summed_rows(rows)
    return gradient @ kernel.astype(x.dtype).T, of_kernel, of_bias


affine.defvjp(
    lambda x, kernel, bias: (functions.affine(x, kernel, bias), (x, kernel, bias)),
    _affine_backward,
)


def _standardized_forward(x):
    mean, factor = layer_norm_statistics(x)
    return (x.astype(jnp.float32) - mean) * factor, (x, mean, factor)


def _standardized_backward(kept, gradient):
    return (_of_standardized(kept, _unit(kept), gradient),)


standardized.defvjp(_standardized_forward, _standardized_backward)


def _layer_norm_forward(x, scale, bias):
    unit, kept = _standardized_forward(x)
    return unit * along_last(scale, x) + along_last(bias, x), (kept, scale)


def _layer_norm_backward(kept, gradient):
    kept, scale = kept
    unit, size = _unit(kept), scale.shape[0]
    of_x = _of_standardized(kept, unit, gradient * along_last(scale, unit))
    of_scale = _summed_rows((gradient * unit).reshape(-1, size))
    return of_x, of_scale, _summed_rows(gradient.reshape(-1, size))


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _unit(kept):
    """Returns what was standardized, again."""
    x, mean, factor = kept
    return (x.astype(jnp.float32) - mean) * factor


def _of_standardized(kept, unit, of_unit):
    """Returns the gradient of x, from that of the standardized x."""
    x, _, factor = kept
    of_x = factor * (of_unit - mean_of_last(of_unit) - unit * mean_of_last(of_unit * unit))
    return of_x.astype(x.dtype)


def _gelu_backward(x, gradient):
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * jnp.pi) ** -0.5
    slope = normal_distribution(wide) + wide * density
    return ((slope * gradient).astype(x.dtype),)


gelu.defvjp(lambda x: (functions.gelu(x), x), _gelu_backward)


def _attend_forward(q, k, v, valid, probe):
    softmax = attention_softmax(q, k, valid)
    weights = softmax if probe is None else softmax + probe
    kept = (q, k, v, valid, probe, softmax.astype(q.dtype))
    return (weights.astype(q.dtype) @ v, weights), kept


def _attend_backward(kept, gradients):
    q, k, v, valid, probe, softmax = kept
    of_out, of_weights = gradients
    weights = softmax if probe is None else (softmax + probe).astype(q.dtype)
    of_v = _transposed(weights) @ of_out
    of_weights += jnp.einsum("ahqd,ahkd->ahqk", of_out, v, preferred_element_type=jnp.float32)
    of_q, of_k = _of_products(q, k, softmax, of_weights, valid)
    return of_q, of_k, of_v, None, None if probe is None else of_weights


def _of_products(q, k, softmax, of_softmax, valid):
    """Returns the gradients of q and k, from that of the softmax of their products."""
    softmax = softmax.astype(jnp.float32)
    along = (of_softmax * softmax).sum(-1, keepdims=True)
    of_scores = softmax * (of_softmax - along) * q.shape[-1] ** -0.5
    if valid is not None:
        of_scores = jnp.where(valid, of_scores, 0)
    of_scores = of_scores.astype(q.dtype)
    return of_scores @ k, _transposed(of_scores) @ q


attend.defvjp(_attend_forward, _attend_backward)


def _attend_with_map_forward(q, k, v, bias, valid, probe, fuse):
    (out, _), (*arrays, _, softmax) = _attend_forward(q, k, v, valid, None)
    return out, (*arrays, bias, softmax)


def _attend_with_map_backward(fuse, kept, gradient):
    q, k, v, valid, bias, softmax = kept
    of_v = _transposed(softmax) @ gradient
    of_softmax = jnp.einsum(
        "ahqd,ahkd->ahqk", gradient, v + bias[None], preferred_element_type=jnp.float32
    )
    of_q, of_k = _of_products(q, k, softmax, of_softmax, valid)
    return of_q, of_k, of_v, None, None, fuse(softmax.astype(jnp.float32), of_softmax)


attend_with_map.defvjp(_attend_with_map_forward, _attend_with_map_backward)


def _transposed(x: jax.Array) -> jax.Array:
    """Returns x [A, h, S, T] as [A, h, T, S], on CPUs in memory."""
    # XLA would make the transpose part of the product, and CPUs are up to twice as slow at that.
    return jax.lax.platform_dependent(
        x.swapaxes(-1, -2), cpu=jax.lax.optimization_barrier, default=lambda turned: turned
    )


def _summed_rows(x: jax.Array) -> jax.Array:
    """Returns the float32 sum [D] of the rows of x [N, D]."""

    # A product with ones takes a CPU half the time of its reductions.
    def product(x: jax.Array) -> jax.Array:
        ones = jnp.ones((1, x.shape[0]), x.dtype)
        return jnp.matmul(ones, x, preferred_element_type=jnp.float32)[0]

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: x.sum(0, dtype=jnp.float32))
