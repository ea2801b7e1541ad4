"""Taps of a model and their gradient, by `jax.vjp` with respect to probes added to them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from aver_jax.models.functions import Fuse, map_shape
from aver_jax.models.gradient_rules import TRUE, GradientRules


class Captured(NamedTuple):
    """What one pass over a batch leaves behind.

    logits: float32 [B,C]. target: int32 [B], the class that is explained. taps: name -> what the
    model gave there: softmax weights float32 [L, ..., heads, query, key], or maps [B,T,h,w,D].
    gradient: of the target's logit with respect to each tap, shaped alike; empty where it was not
    asked for.
    """

    logits: Array
    target: Array
    taps: dict[str, Array]
    gradient: dict[str, Array]


def resolved(target: Array, logits: Array) -> Array:
    """Returns the explained classes int32 [B]: `target`, or the predicted class where it is -1."""
    return jnp.where(target < 0, jnp.argmax(logits, axis=-1), target).astype(jnp.int32)


def fused_attention_maps(
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Array],
    taps: Sequence[str],
    target: Array,
    fuse: Fuse,
    rules: GradientRules = TRUE,
) -> Captured:
    """Runs `model` and its backward pass once, and fuses heads where their gradients arise.

    The attention of a layer and its gradient are of size [heads, tokens, tokens] a row, and neither
    is kept longer than the layer takes.

    Args:
      model: has `apply(variables, inputs, probes=..., fuse=..., rules=...)` and `tap_shapes(B)`.
      variables, inputs, target: as in `captured`.
      taps: names of attentions.
      fuse: makes a map [..., query, key] of weights and gradient, both [..., heads, query, key].
      rules: what gradients are; static.

    Returns:
      Captured without taps, whose gradient is the maps, float32 [L, ..., query, key].
    """
    shapes = model.tap_shapes(next(iter(inputs.values())).shape[0])
    probes = {name: jnp.zeros(map_shape(shapes[name])) for name in taps}
    logits, pullback = jax.vjp(
        lambda probes: model.apply(variables, inputs, probes=probes, fuse=fuse, rules=rules)[0],
        probes,
    )
    return pulled_back(logits, target, {}, pullback)


def captured(
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Array],
    taps: Sequence[str],
    target: Array,
    with_gradient: bool,
) -> Captured:
    """Runs `model` once and, if `with_gradient`, pulls the target's logit back to its taps.

    Clips of a batch do not interact, so that one pullback of a one-hot cotangent [B,C] gives every
    clip's own gradient.

    Args:
      model: has `apply(variables, inputs, capture=..., probes=...) -> (logits, taps)`.
      variables: of the model.
      inputs: name -> array with leading axis B.
      taps: names of attentions or maps.
      target: int32 [B]; -1 stands for the predicted class.
      with_gradient: static.
    """
    taps = tuple(taps)

    def run(probes: Mapping[str, Array] | None) -> tuple[Array, dict[str, Array]]:
        logits, found = model.apply(variables, inputs, capture=taps, probes=probes)
        return logits, {name: found[name] for name in taps}

    if not with_gradient:
        logits, given = run(None)
        return Captured(logits, resolved(target, logits), given, {})
    # Shaped by this very batch: a probe of another batch size would broadcast silently, and its
    # gradient be summed over clips.
    shapes = jax.eval_shape(lambda: run(None)[1])
    probes = {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
    logits, pullback, given = jax.vjp(run, probes, has_aux=True)
    return pulled_back(logits, target, given, pullback)


def pulled_back(
    logits: Array, target: Array, given: dict[str, Array], pullback: Callable[[Array], Any]
) -> Captured:
    """Returns what a pass leaves behind, with the gradient of the target's logits."""
    chosen = resolved(target, logits)
    (gradient,) = pullback(jax.nn.one_hot(chosen, logits.shape[-1], dtype=logits.dtype))
    return Captured(logits, chosen, given, gradient)
