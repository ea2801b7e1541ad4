"""Attention over the frames of a clip: every position attends to itself in all frames.

Rows have a handful of tokens here. A product with so small a matrix fills no matrix unit, and would
want the frames beside each other in memory, while everything else of a layer wants the positions of
a frame. Away from CPUs it is products and sums over whole arrays instead, which a compiler fuses
into few loops, and no array changes its order.
"""

import functools

import jax
import jax.numpy as jnp

from aver_jax.models.functions import Fuse


@jax.custom_vjp
def attend_over_time(
    q: jax.Array, k: jax.Array, v: jax.Array, probe: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns scaled dot-product attention over axis 1 (Vaswani et al. 2017).

    Args:
      q, k, v: [B, T, S, h, d], of one dtype.
      probe: float32 [B, T, T, S, h], to add to the softmax; or None.

    Returns:
      The attended values [B, T, S, h, d], and what multiplied them, float32 [B, T, T, S, h] (query,
      key): the softmax, and the probe.
    """
    out, weights, _ = _attended(q, k, v, probe)
    return out, weights


def _attended(q, k, v, probe):
    softmax = jax.nn.softmax(_similarity(q, k) * q.shape[-1] ** -0.5, axis=2)
    weights = softmax if probe is None else softmax + probe
    return _weighted(weights.astype(q.dtype), v), weights, softmax


def _forward(q, k, v, probe):
    out, weights, softmax = _attended(q, k, v, probe)
    return (out, weights), (q, k, v, probe, softmax.astype(q.dtype))


def _backward(kept, gradients):
    q, k, v, probe, softmax = kept
    of_out, of_weights = gradients
    weights = softmax if probe is None else (softmax + probe).astype(q.dtype)
    of_v = _weighted(weights.swapaxes(1, 2), of_out)
    of_weights += _similarity(of_out, v)
    of_q, of_k = _of_products(q, k, softmax, of_weights)
    return of_q, of_k, of_v, None if probe is None else of_weights


def _of_products(q, k, softmax, of_softmax):
    """Returns the gradients of q and k, from that of the softmax of their products."""
    softmax = softmax.astype(jnp.float32)
    along = (of_softmax * softmax).sum(2, keepdims=True)
    of_scores = (softmax * (of_softmax - along) * q.shape[-1] ** -0.5).astype(q.dtype)
    return _weighted(of_scores, k), _weighted(of_scores.swapaxes(1, 2), q)


attend_over_time.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend_over_time_with_map(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, probe: jax.Array, fuse: Fuse
) -> jax.Array:
    """Returns attention [B, T, S, h, d] with a map for the gradient of `probe` [B, S, T, T].

    As `functions.attend_with_map`: `bias` is [h, d], and `fuse` is given softmax and gradient as
    [B, S, h, T, T].
    """
    del bias, probe, fuse
    return _attended(q, k, v, None)[0]


def _forward_with_map(q, k, v, bias, probe, fuse):
    (out, _), (*arrays, _, softmax) = _forward(q, k, v, None)
    return out, (*arrays, bias, softmax)


def _backward_with_map(fuse, kept, gradient):
    q, k, v, bias, softmax = kept
    of_v = _weighted(softmax.swapaxes(1, 2), gradient)
    of_softmax = _similarity(gradient, v + bias[None, None, None])
    arrays = (softmax.astype(jnp.float32), of_softmax)
    of_probe = fuse(*(x.transpose(0, 3, 4, 1, 2) for x in arrays))
    return *_of_products(q, k, softmax, of_softmax), of_v, None, of_probe


attend_over_time_with_map.defvjp(_forward_with_map, _backward_with_map)


def _similarity(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the products of all frames' features, float32 [B, T, U, S, h], of [B, T, S, h, d]."""

    def product(a, b):
        found = jnp.einsum("btshd,bushd->bshtu", a, b, preferred_element_type=jnp.float32)
        return found.transpose(0, 3, 4, 1, 2)

    def fused(a, b):
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        return (a[:, :, None] * b[:, None]).sum(-1)

    return jax.lax.platform_dependent(a, b, cpu=product, default=fused)


def _weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Returns sums over frames [B, T, S, h, d], of weights [B, T, U, S, h] and values [B, U, ...].

    They are summed in float32 and have the values' dtype.
    """

    def product(weights, values):
        return jnp.einsum("btush,bushd->btshd", weights, values)

    def fused(weights, values):
        terms = weights[..., None].astype(jnp.float32) * values[:, None].astype(jnp.float32)
        return terms.sum(2).astype(values.dtype)

    return jax.lax.platform_dependent(weights, values, cpu=product, default=fused)
