r"""Relevance of the input itself: the gradient of the explained logit y with respect to it.

x is the model's input after the front end, g = dy/dx:

    saliency              max_c |g|                                   (Simonyan et al. 2014)
    input_x_gradient      (sum_c x g)^+                               (Shrikumar et al. 2016)
    integrated_gradients  (sum_c x mean_k g(a_k x))^+                 (Sundararajan et al. 2017)
    smooth_grad           max_c |mean_k g(x + e_k)|                   (Smilkov et al. 2017)

c runs over the colours of a pixel; sound has none. The baseline of integrated gradients is 0, which
is the mean of what the front end standardises; a_k are the middles of `STEPS` equal parts of 0..1.
Before the clamp their sum over all inputs is y(x) - y(0), but for the error of so many steps. e_k
is normal noise of `NOISE` times the range of a clip's values, `STEPS` draws from a fixed seed. The
clamps keep what speaks for the class, as the other methods do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from aver_jax.relevance.capture import resolved

METHODS = ("saliency", "input_x_gradient", "integrated_gradients", "smooth_grad")
STEPS = 16
NOISE = 0.15

Gradient = Callable[[Array], Array]


def attribution(
    method: str, gradient: Gradient, x: Array, steps: int = STEPS, valid: Array | None = None
) -> Array:
    """Returns what a method gives every value of the input, with its sign, float32 like x.

    Args:
      method: one of `METHODS`; static.
      gradient: x -> dy/dx of every clip of a batch.
      x: float [B, ...].
      steps: K of integrated gradients and smooth_grad; static. They are done one after the other,
        so that memory does not grow with them.
      valid: bool [B, T] of x [B, T, ...]: the rest is padding, whose values no range counts; None:
        all are valid.
    """
    if method == "saliency":
        return jnp.float32(gradient(x))
    if method == "input_x_gradient":
        return jnp.float32(x * gradient(x))
    if method == "integrated_gradients":
        parts = (jnp.arange(steps, dtype=x.dtype) + 0.5) / steps
        return x * _mean(lambda part: gradient(part * x), parts, x)
    axes = tuple(range(1, x.ndim))
    inside = True
    if valid is not None:
        inside = jnp.broadcast_to(valid.reshape(valid.shape + (1,) * (x.ndim - 2)), x.shape)
    high = jnp.max(x, axes, keepdims=True, initial=-jnp.inf, where=inside)
    low = jnp.min(x, axes, keepdims=True, initial=jnp.inf, where=inside)
    # A clip without anything valid has no range.
    width = NOISE * jnp.maximum(high - low, 0)

    def noisy(key: Array) -> Array:
        # The same noise for every clip: a clip's map does not depend on the rest of its batch.
        return gradient(x + width * jax.random.normal(key, x.shape[1:], x.dtype)[None])

    return _mean(noisy, jax.random.split(jax.random.key(0), steps), x)


def relevance(method: str, signed: Array) -> Array:
    """Returns the relevance of places, non-negative float32 [B,T,h,w].

    Args:
      method: one of `METHODS`; static.
      signed: of `attribution`, [B,T,h,w,C] of frames or [B,N,F,W] of sound.
    """
    plain = signed[..., None] if signed.ndim == 4 else signed
    if method in ("saliency", "smooth_grad"):
        return jnp.abs(plain).max(axis=-1)
    return jnp.maximum(plain.sum(axis=-1), 0)


def input_relevance(
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Array],
    target: Array,
    method: str,
    array: str,
    valid: Array,
) -> tuple[Array, Array, Array]:
    """Returns logits float32 [B,C], the explained classes int32 [B], and maps float32 [B,T,h,w].

    Args:
      model: has `apply(variables, inputs) -> (logits, taps)`.
      variables, inputs: as in `explain`.
      target: int32 [B]; -1 stands for the predicted class.
      method: one of `METHODS`; static.
      array: the input that is explained, "frames" or "audio"; static.
      valid: bool [B,T] or [B,N]; the rest is padding, which has no relevance.
    """

    def logits_of(x: Array) -> Array:
        return model.apply(variables, {**inputs, array: x})[0]

    logits = logits_of(inputs[array])
    chosen = resolved(target, logits)
    cotangent = jax.nn.one_hot(chosen, logits.shape[-1], dtype=logits.dtype)

    def gradient(x: Array) -> Array:
        # Clips of a batch do not interact: one pullback gives every clip's own gradient.
        return jax.vjp(logits_of, x)[1](cotangent)[0]

    signed = attribution(method, gradient, inputs[array], valid=valid)
    maps = relevance(method, signed)
    return logits, chosen, jnp.where(valid[..., None, None], maps, 0)


def _mean(function: Callable[[Array], Array], over: Array, like: Array) -> Array:
    def add(total: Array, each: Array) -> tuple[Array, None]:
        return total + jnp.float32(function(each)), None

    total, _ = jax.lax.scan(add, jnp.zeros(like.shape, jnp.float32), over)
    return total / len(over)
