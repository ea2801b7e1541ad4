"""From a batch of integers to a model's inputs, on the device and inside the jitted step."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from aver_jax.frontend.augment import augmented, checked_amounts, random_factors
from aver_jax.frontend.keys import AUGMENTATION, example_keys, stream_keys
from aver_jax.frontend.normalize import NORMALIZATIONS, normalized

__all__ = ["evaluation_inputs", "example_keys", "stream_keys", "training_inputs"]


def training_inputs(config: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Augmented and normalised inputs of a model: modality -> float array.

    The random factors of example i come from `fold_in(key(config.seed), batch["seed"][i])` alone,
    so they do not depend on its place in the batch, nor on the devices.

    Args:
      config: has `seed`, `frontend.normalization` (see `normalize.normalized`) and
        `frontend.augment`, a mapping with the fields of `augment.OFF`; a missing field is off.
      batch: has `frames` uint8 [B,T,H,W,3] and `seed` uint32 [B].

    Returns:
      `{"frames": float32 [B,T,H,W,3]}`.

    Raises:
      ValueError: for an unknown normalisation or augmentation, an amount out of range, or frames
        that are not uint8.
    """
    amounts = checked_amounts(_checked_frontend(config).get("augment", {}))
    frames = _checked_frames(batch)
    keys = stream_keys(example_keys(config.seed, batch["seed"]), AUGMENTATION)
    height, width = frames.shape[2:4]

    def augmented_example(frames: Array, key: Array) -> Array:
        return augmented(frames, random_factors(key, amounts, height, width), amounts)

    frames = jax.vmap(augmented_example)(frames, keys)
    return {"frames": normalized(frames, config.frontend.normalization)}


def evaluation_inputs(config: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Normalised inputs of a model, as `training_inputs` gives them, without augmentation.

    `batch` needs no `seed` here.
    """
    _checked_frontend(config)
    return {"frames": normalized(_checked_frames(batch), config.frontend.normalization)}


def _checked_frontend(config: Any) -> Mapping[str, Any]:
    frontend = config.frontend
    known = {"normalization", "augment"}
    if unknown := sorted(set(frontend) - known):
        raise ValueError(
            f"frontend has unknown fields {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    if frontend.get("normalization") not in NORMALIZATIONS:
        raise ValueError(
            f"frontend.normalization is {frontend.get('normalization')!r}; expected one of "
            f"{', '.join(NORMALIZATIONS)}"
        )
    return frontend


def _checked_frames(batch: Mapping[str, Array]) -> Array:
    frames = batch["frames"]
    if frames.dtype != "uint8" or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(
            f"batch['frames'] is {frames.dtype} {list(frames.shape)}; expected uint8 [B,T,H,W,3]"
        )
    return frames
