"""Affine map, LayerNorm, GELU and attention in their plain forms: what the networks compute.

The networks call them through `custom_gradients`, which has the same values.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

#: (softmax [..., heads, query, key], its gradient) -> map [..., query, key].
Fuse = Callable[[jax.Array, jax.Array], jax.Array]

LAYER_NORM_EPSILON = 1e-6


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Returns vector [D] with as many axes as x [..., D]."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Returns x @ kernel + bias [..., O], x [..., I]; kernel and bias are cast to x's dtype."""
    product = x @ kernel.astype(x.dtype)
    return product if bias is None else product + along_last(bias.astype(x.dtype), x)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns float32 [..., D], x [..., D] centred and divided by its std, times scale, plus bias.

    Layer normalisation (Ba et al. 2016), with float32 statistics.
    """
    return standardized(x) * along_last(scale, x) + along_last(bias, x)


def standardized(x: jax.Array) -> jax.Array:
    """Returns float32 [..., D]: x [..., D] less its mean over D, divided by its std.

    Layer normalisation (Ba et al. 2016) before scale and bias, with float32 statistics.
    """
    mean, factor = layer_norm_statistics(x)
    return (x.astype(jnp.float32) - mean) * factor


def layer_norm_statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and the inverse std over the last axis, float32 [..., 1]."""
    wide = x.astype(jnp.float32)
    mean = mean_of_last(wide)
    # Not E[x^2] - E[x]^2, which loses digits where the mean is large.
    variance = mean_of_last(jnp.square(wide - mean))
    return mean, jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)


def mean_of_last(x: jax.Array) -> jax.Array:
    """Returns the mean [..., 1] over the last axis of x, float32 [..., D]."""

    # A product with ones takes a CPU half the time of its reductions (docs/benchmarks/log.md).
    def product(x: jax.Array) -> jax.Array:
        return x @ jnp.full((x.shape[-1], 1), 1 / x.shape[-1])

    return jax.lax.platform_dependent(x, cpu=product, default=lambda x: x.mean(-1, keepdims=True))


def gelu(x: jax.Array) -> jax.Array:
    """Returns x * (1 + erf(x / sqrt 2)) / 2, in float32 inside and of x's dtype."""
    wide = x.astype(jnp.float32)
    return (wide * normal_distribution(wide)).astype(x.dtype)


def normal_distribution(x: jax.Array) -> jax.Array:
    """Returns the cumulative distribution of the standard normal, float32."""
    # jax.nn.gelu takes erfc, which keeps the digits of the far tail in bfloat16 too, by two
    # polynomials of which it selects one.
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array | None, probe: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns scaled dot-product attention (Vaswani et al. 2017).

    Args:
      q, k, v: [A, h, S, d], of one dtype.
      valid: bool [A, 1, 1, S], the keys that are attended to, or None for all.
      probe: float32 [A, h, S, S] and of no smaller shape, to add to the softmax; or None.

    Returns:
      weights @ v [A, h, S, d], and weights, float32 [A, h, S, S]: the softmax, and the probe.
    """
    softmax = attention_softmax(q, k, valid)
    weights = softmax if probe is None else softmax + probe
    return weights.astype(q.dtype) @ v, weights


def map_shape(attention: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape [..., query, key] of a map of attention [..., heads, query, key]."""
    return (*attention[:-3], *attention[-2:])


def attend_with_map(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    valid: jax.Array | None,
    probe: jax.Array,
    fuse: Fuse,
) -> jax.Array:
    """Returns attention [A, h, S, d], with a map of every row in the place of a probe's gradient.

    The backward pass calls `fuse` where it has the softmax and its gradient, which then need not
    leave it.

    Args:
      q, k, v, valid: as `attend`.
      bias: [h, 1, d], what all of v lacks: it changes the gradient of the softmax, and has none.
      probe: float32 [A, S, S], not read.
      fuse: makes a map float32 [A, S, S] of the softmax and its gradient, both [A, h, S, S]: what
        the gradient with respect to `probe` is.
    """
    del bias, probe, fuse
    return attend(q, k, v, valid, None)[0]


def attention_softmax(q: jax.Array, k: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Returns softmax(q k^T / sqrt d), float32 [A, h, S, S]; arguments as for `attend`."""
    scores = jnp.einsum("ahqd,ahkd->ahqk", q, k, preferred_element_type=jnp.float32)
    if valid is not None:
        scores = jnp.where(valid, scores, jnp.finfo(jnp.float32).min / 2)
    return jax.nn.softmax(scores * q.shape[-1] ** -0.5, axis=-1)
