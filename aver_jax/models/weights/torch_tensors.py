"""Tensors of PyTorch checkpoints by name: taken out of their wrappings, and checked."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

ROOT_KEYS = ("model_state", "state_dict", "model", "module")


class CheckpointError(ValueError):
    """A checkpoint that does not hold what its family should; the message names the keys."""


def plain_tensors(checkpoint: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns names to float32 arrays without root keys and without the prefixes of wrappers."""
    state: Any = checkpoint
    while root := next((k for k in ROOT_KEYS if isinstance(state.get(k), Mapping)), None):
        state = state[root]
    if not state:
        raise CheckpointError("the checkpoint is empty")
    strange = sorted(str(k) for k, v in state.items() if not isinstance(v, np.ndarray))
    if strange:
        raise CheckpointError(
            f"not arrays: {listed(strange)}; expected parameters, at the root or under one of "
            f"{', '.join(ROOT_KEYS)}"
        )
    for prefix in ("module.", "model."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return {name: value.astype(np.float32) for name, value in state.items()}


def disagreements(
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    shown: Callable[[str], str] = str,
) -> list[str]:
    """Returns what keeps tensors from being those of a model, one text for every kind of reason.

    Args:
      tensors: the checkpoint's.
      shapes: name and shape of every tensor of the model.
      shown: the checkpoint's own name of a tensor.
    """
    misshaped = {
        f"{shown(name)} {tensors[name].shape} instead of {shape}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    }
    reasons = {
        "missing": {shown(name) for name in shapes.keys() - tensors.keys()},
        "unexpected": {shown(name) for name in tensors.keys() - shapes.keys()},
        "misshaped": misshaped,
        "not finite": {shown(name) for name, x in tensors.items() if not np.isfinite(x).all()},
    }
    return [f"{reason}: {listed(sorted(names))}" for reason, names in reasons.items() if names]


def listed(names: list[str]) -> str:
    """Returns names joined, at most eight of them."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
