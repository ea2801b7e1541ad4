r"""LeGrad: how sensitive what every layer says of a class is to its attention.

(Bousselham et al., ICCV 2025.) s^l is the logit of the explained class that norm and head give the
mean of all tokens after layer l; A^l is that layer's attention, h its heads, i the queries:

    E_j = mean_l 1 / (h Q) sum_(h, i) (ds^l / dA^l_hij)^+           for the token j

Only the gradient counts, not the weight that it belongs to, and s^l is differentiated with respect
to its own layer alone. On one image this is the paper's rule. A layer with divided attention has
two, over time and over space: the sums of both are added, each over all queries of the clip, and Q
is the number of the clip's tokens, 1 + N*T. On the path `spatial` every frame has a cls token of
its own, and Q is T*(1 + N).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from aver_jax.models.functions import map_shape
from aver_jax.models.gradient_rules import LAYERS_APART
from aver_jax.relevance.capture import Captured, resolved

METHODS = ("legrad",)


def positive_gradient(attention: Array, gradient: Array) -> Array:
    """Returns mean_h(dA^+) [..., query, key], of the gradient [..., heads, query, key]."""
    del attention
    return jnp.mean(jnp.maximum(gradient, 0), axis=-3)


def sensitivity(
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Array],
    taps: Sequence[str],
    target: Array,
) -> Captured:
    """Runs `model` and its backward pass once: the maps mean_h(dA^+) of every layer's own score.

    Args:
      model: has `apply(variables, inputs, capture=..., probes=..., fuse=..., rules=...)`,
        `tap_shapes(B)` and `layer_scores(variables, tokens)`.
      variables, inputs: as in `explain`.
      taps: names of attentions.
      target: int32 [B]; -1 stands for the predicted class.

    Returns:
      Captured without taps, whose gradient is the maps, float32 [L, ..., query, key].
    """
    shapes = model.tap_shapes(inputs["frames"].shape[0])
    probes = {name: jnp.zeros(map_shape(shapes[name])) for name in taps}

    def scores(probes: Mapping[str, Array]) -> tuple[Array, Array]:
        logits, found = model.apply(
            variables,
            inputs,
            capture=("block",),
            probes=probes,
            fuse=positive_gradient,
            rules=LAYERS_APART,
        )
        return model.layer_scores(variables, found["block"]), logits

    of_layers, pullback, logits = jax.vjp(scores, probes, has_aux=True)
    chosen = resolved(target, logits)
    one_hot = jax.nn.one_hot(chosen, logits.shape[-1], dtype=of_layers.dtype)
    (maps,) = pullback(jnp.broadcast_to(one_hot[None], of_layers.shape))
    return Captured(logits, chosen, {}, maps)


def patch_relevance(maps: Mapping[str, Array], batch: int, frames: int) -> Array:
    """Returns the relevance of the patches, float32 [B,T,N], non-negative.

    Args:
      maps: of `sensitivity`.
      batch: number of clips.
      frames: of each clip.
    """
    keys = {name: found.sum(axis=-2).mean(axis=0) for name, found in maps.items()}
    if "attention_joint" in keys:
        # Tokens run with time fastest: 1 + p*T + t.
        joint = keys["attention_joint"]
        return joint[:, 1:].reshape(batch, -1, frames).swapaxes(1, 2) / joint.shape[1]
    space = keys["attention_space"].reshape(batch, frames, -1)
    patches = space.shape[2] - 1
    found = space[..., 1:]
    if "attention_time" not in keys:
        return found / (frames * (1 + patches))
    time = keys["attention_time"].reshape(batch, patches, frames)
    return (found + time.swapaxes(1, 2)) / (1 + patches * frames)
