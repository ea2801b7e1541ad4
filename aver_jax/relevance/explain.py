"""Relevance maps of a batch of clips: one jitted call for every model, method and path."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aver_jax.relevance import heads
from aver_jax.relevance.capture import Captured, captured
from aver_jax.relevance.recursion import attention_row, space_time_row


class Method(NamedTuple):
    """How heads are fused, whether that takes the gradient, and whether rows are scaled."""

    fuse: Callable[..., Array]
    gradient: bool
    rollout: bool


METHODS = {
    "tibav": Method(heads.tibav, gradient=True, rollout=False),
    "rollout_grad": Method(heads.rollout_grad, gradient=True, rollout=True),
    "rollout_min": Method(heads.rollout_min, gradient=False, rollout=True),
    "rollout_mean": Method(heads.rollout_mean, gradient=False, rollout=True),
    "rollout_max": Method(heads.rollout_max, gradient=False, rollout=True),
}

# Attention type -> path -> the attentions that the path goes through.
PATHS = {
    "divided_space_time": {
        "space_time": ("attention_time", "attention_space"),
        "spatial": ("attention_space",),
    },
    "joint_space_time": {"space_time": ("attention_joint",)},
    "space_only": {"spatial": ("attention_space",)},
}


class Relevance(NamedTuple):
    """maps: float32 [B,T,h,w], h x w patches. logits: float32 [B,C]. target: int32 [B]."""

    maps: Array
    logits: Array
    target: Array


def explain(
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Array],
    method: str = "tibav",
    path: str = "space_time",
    modality: str = "frames",
    target: Any = None,
    normalize: bool = True,
) -> Relevance:
    """Relevance of every patch of every frame for a class, for a whole batch in one jitted call.

    Methods (du Toit 2022; `heads` and `recursion` have the equations): `tibav` (Chefer et al.,
    ICCV 2021) and `rollout_grad` (Gildenblat) explain a class; `rollout_min`, `rollout_mean` and
    `rollout_max` (Abnar & Zuidema 2020) know attention alone, so that the class plays no part.

    Paths: `space_time` goes through all attentions of the model; `spatial` treats every frame on
    its own, by its spatial attention alone (du Toit's form). Joint attention has only the first,
    space-only attention only the second.

    Args:
      model: a TimeSformer, hashable as Linen modules are.
      variables: its `{"params": ...}`.
      inputs: as the front end gives them; `frames` float [B,T,H,W,3].
      method: one of `METHODS`.
      path: "space_time" or "spatial".
      modality: whose relevance; a TimeSformer has "frames" alone.
      target: class index, one for all or int [B]; None explains the predicted class of each clip.
      normalize: min-max scaled to 0..1 over a clip's whole volume, so that its frames compare (a
        constant map becomes 0). False gives the cls row of the recursion as it is (non-negative).

    Raises:
      ValueError: for an unknown method, path or modality, a path that the model's attention lacks,
        or a target that does not fit the batch and the classes.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    paths = PATHS[model.attention]
    if path not in {name for known in PATHS.values() for name in known}:
        raise ValueError(f"path is {path!r}; expected 'space_time' or 'spatial'")
    if path not in paths:
        raise ValueError(
            f"path {path!r} does not exist in {model.attention} attention; "
            f"use path={next(iter(paths))!r}"
        )
    if modality != "frames" or "frames" not in inputs:
        raise ValueError(
            f"modality is {modality!r} and the inputs are {', '.join(sorted(inputs))}; "
            "a TimeSformer is explained by modality 'frames'"
        )
    batch = inputs["frames"].shape[0]
    chosen = _checked_target(target, batch, model.num_classes)
    raw, scaled, logits, target = _compiled(model, method, path)(variables, inputs, chosen)
    return Relevance(scaled if normalize else raw, logits, target)


@functools.lru_cache(maxsize=32)
def _compiled(model: Any, method: str, path: str) -> Callable[..., tuple[Array, ...]]:
    def maps(variables: Any, inputs: Mapping[str, Array], target: Array) -> tuple[Array, ...]:
        taps, gradient = PATHS[model.attention][path], METHODS[method].gradient
        found = captured(model, variables, inputs, taps, target, gradient)
        batch, frames, height, width = inputs["frames"].shape[:4]
        grid = (height // model.patch_size, width // model.patch_size)
        row = cls_row(found, method, path, batch, frames)
        raw = row.reshape(batch, frames, *grid)
        # Both come back: compiling again for the other costs seconds, scaling next to nothing.
        return raw, _scaled(raw), found.logits, found.target

    return jax.jit(maps)


def cls_row(found: Captured, method: str, path: str, batch: int, frames: int) -> Array:
    """Relevance of the patches for the cls token, in the model's captured attention.

    Args:
      found: the attention of `PATHS`, with its gradient where the method takes it.
      method: one of `METHODS`.
      path: one that the model's attention has.
      batch: number of clips.
      frames: of each clip.

    Returns:
      float32 [B,T,N], non-negative.
    """
    fuse, gradient, rollout = METHODS[method]

    def fused(tap: str) -> Array:
        return fuse(found.attention[tap], *([found.gradient[tap]] if gradient else []))

    if "attention_joint" in found.attention:
        row = attention_row(fused("attention_joint"), rollout)
        # Tokens run with time fastest: 1 + p*T + t.
        return row.reshape(batch, -1, frames).swapaxes(1, 2)
    space = fused("attention_space")
    space = space.reshape(space.shape[0], batch, frames, *space.shape[2:])
    if path == "spatial":
        return attention_row(space, rollout)
    time = fused("attention_time")
    time = time.reshape(time.shape[0], batch, -1, *time.shape[2:])
    return space_time_row(time, space, rollout, cls_weight=1 if gradient else 1 / frames)


def _scaled(maps: Array) -> Array:
    low = jnp.min(maps, axis=(1, 2, 3), keepdims=True)
    high = jnp.max(maps, axis=(1, 2, 3), keepdims=True)
    # Below this the differences are float32 rounding, and scaling them up would make a picture.
    varies = high - low > 1e-6 * high
    return jnp.where(varies, (maps - low) / jnp.where(varies, high - low, 1), 0)


def _checked_target(target: Any, batch: int, num_classes: int) -> Array:
    """int32 [B], with -1 for the predicted class."""
    if target is None:
        return jnp.full(batch, -1, jnp.int32)
    target = jnp.asarray(target)
    if not jnp.issubdtype(target.dtype, jnp.integer) or target.shape not in ((), (batch,)):
        raise ValueError(
            f"target is {target.dtype} {list(target.shape)}; expected a class index, or integers "
            f"[{batch}], one for each clip"
        )
    if not isinstance(target, jax.core.Tracer):
        values = np.ravel(target)
        wrong = values[(values < 0) | (values >= num_classes)]
        if wrong.size:
            raise ValueError(
                f"target has class {wrong[0]}; expected 0 to {num_classes - 1}, or None for the "
                "predicted class"
            )
    return jnp.broadcast_to(target.astype(jnp.int32), (batch,))
