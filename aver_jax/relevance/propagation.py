r"""Relevance propagated from the explained logit y to the frames by one backward pass.

x are the frames after the front end, g the gradient of y with respect to them by other rules than
the true ones (`models.gradient_rules`). A patch has

    R = (sum_(pixels, colours) x g)^+

    libra_grad   LibraGrad's Input x Grad (Mehri et al. 2024): LayerNorm's denominator, the gate of
                 GELU, and attention (queries, keys) are constants
    attn_lrp     AttnLRP (Achtibat et al., ICML 2024, epsilon 0): LayerNorm's denominator and the
                 gate of GELU are constants; products in attention halve relevance, and what
                 softmax gives its input is its gradient

Before the clamp LibraGrad is complete: the sum over all pixels, and over whatever the network adds
(biases, cls token, position and time embeddings) times its own gradient, is y. AttnLRP is not:
softmax keeps a part for itself, which the paper calls its bias term. The paper's gamma rule, which
is for networks with noisy gradients and costs more products, is left out.
"""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from aver_jax.models.gradient_rules import ATTN_LRP, LIBRA
from aver_jax.relevance.capture import pulled_back

METHODS = {"libra_grad": LIBRA, "attn_lrp": ATTN_LRP}


def propagated(
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Array],
    target: Array,
    method: str,
) -> tuple[Array, Array, Array]:
    """Returns logits float32 [B,C], the explained classes int32 [B], and x g [B,T,H,W,3], signed.

    Args:
      model: has `apply(variables, inputs, rules=...) -> (logits, taps)`.
      variables, inputs: as in `explain`.
      target: int32 [B]; -1 stands for the predicted class.
      method: one of `METHODS`; static.
    """
    frames = inputs["frames"]

    def logits_of(frames: Array) -> Array:
        return model.apply(variables, {**inputs, "frames": frames}, rules=METHODS[method])[0]

    logits, pullback = jax.vjp(logits_of, frames)
    found = pulled_back(logits, target, {}, pullback)
    return logits, found.target, frames * found.gradient


def patch_sums(pixels: Array, size: int) -> Array:
    """Returns the sums [B,T,h,w] over patches of `size` x `size` pixels [B,T,H,W,C]."""
    batch, frames, height, width, channels = pixels.shape
    parts = (height // size, size, width // size, size)
    return pixels.reshape(batch, frames, *parts, channels).sum(axis=(3, 5, 6))
