"""Relevance from attention: which maps a path goes through, and how a method reads them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax import Array

from aver_jax.models.gradient_rules import LIBRA, TRUE, GradientRules
from aver_jax.relevance import head_fusion
from aver_jax.relevance.rollout import attention_row, space_time_row


class Method(NamedTuple):
    """How heads are fused, whether that takes the gradient, whether rows are scaled, and rules."""

    fuse: Callable[..., Array]
    gradient: bool
    rollout: bool
    rules: GradientRules = TRUE


METHODS = {
    "tibav": Method(head_fusion.tibav, gradient=True, rollout=False),
    "rollout_grad": Method(head_fusion.rollout_grad, gradient=True, rollout=True),
    "rollout_min": Method(head_fusion.rollout_min, gradient=False, rollout=True),
    "rollout_mean": Method(head_fusion.rollout_mean, gradient=False, rollout=True),
    "rollout_max": Method(head_fusion.rollout_max, gradient=False, rollout=True),
    "libra_tibav": Method(head_fusion.tibav, gradient=True, rollout=False, rules=LIBRA),
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


def cls_row(maps: Mapping[str, Array], method: str, path: str, batch: int, frames: int) -> Array:
    """Returns the relevance of the patches for the cls token, by maps of the attention.

    Args:
      maps: of the attention of `PATHS`, its heads fused, [L, ..., query, key].
      method: one of `METHODS`.
      path: one that the model's attention has.
      batch: number of clips.
      frames: of each clip.

    Returns:
      float32 [B,T,N], non-negative.
    """
    _, gradient, rollout, _ = METHODS[method]
    if "attention_joint" in maps:
        row = attention_row(maps["attention_joint"], rollout)
        # Tokens run with time fastest: 1 + p*T + t.
        return row.reshape(batch, -1, frames).swapaxes(1, 2)
    space = maps["attention_space"]
    space = space.reshape(space.shape[0], batch, frames, *space.shape[2:])
    if path == "spatial":
        return attention_row(space, rollout)
    time = maps["attention_time"]
    time = time.reshape(time.shape[0], batch, -1, *time.shape[2:])
    return space_time_row(time, space, rollout, cls_weight=1 if gradient else 1 / frames)


def patch_maps(tokens: Array, attention: str, batch: int, grid: tuple[int, int]) -> Array:
    """Returns the patches of the last layer's "norm1" as maps [B,T,h,w,D], the cls token left out.

    Args:
      tokens: the tap, or its gradient, [L, ..., S, D].
      attention: the model's attention type.
      batch: number of clips.
      grid: h, w.
    """
    patches = tokens[-1][:, 1:]
    if attention == "joint_space_time":
        # Tokens run with time fastest.
        patches = patches.reshape(batch, grid[0] * grid[1], -1, patches.shape[-1]).swapaxes(1, 2)
    return patches.reshape(batch, -1, *grid, patches.shape[-1])
