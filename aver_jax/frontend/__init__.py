"""From a batch of integers to a model's inputs, on the device and inside the jitted step."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from aver_jax.frontend import sound, spectrogram
from aver_jax.frontend.augment import augmented, checked_amounts, random_factors
from aver_jax.frontend.fields import check_known
from aver_jax.frontend.keys import AUGMENTATION, SOUND, example_keys, stream_keys
from aver_jax.frontend.level import checked_level, levelled
from aver_jax.frontend.normalize import NORMALIZATIONS, normalized

__all__ = ["evaluation_inputs", "example_keys", "stream_keys", "training_inputs"]


def training_inputs(config: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Returns augmented and normalised inputs of a model, of whatever modalities the batch has.

    The random factors of example i come from `fold_in(key(config.seed), batch["seed"][i])` alone,
    so they do not depend on its place in the batch, nor on the devices.

    Args:
      config: has `seed` (which may be traced) and `frontend`, a mapping with `normalization` (see
        `normalize.normalized`), `augment` (fields of `augment.OFF`), `spectrogram` (fields of
        `spectrogram.Settings`), `level` (one of `level.LEVELS`) and `sound` (fields of
        `sound.OFF`). Only `normalization` has no default, where there are frames; the level and
        the augmentations are off.
      batch: `seed` uint32 [B], and `frames` uint8 [B,T,H,W,3], or `audio` int16 [B,S] and
        `audio_length` int32 [B], or all of them.

    Returns:
      With frames: `frames` float32 [B,T,H,W,3]. With audio: `audio` float32 [B,N,F,W], segments of
      the spectrogram (`spectrogram.segments_of`), and `audio_segments` int32 [B], how many of them
      are the clip's.

    Raises:
      ValueError: for an unknown field, name or amount out of range, or arrays of other types.
    """
    frontend, settings = _checked(config, batch)
    amounts = checked_amounts(frontend.get("augment", {}))
    sound_amounts = sound.checked_amounts(frontend.get("sound", {}))
    keys = example_keys(config.seed, batch["seed"])
    inputs = {}
    if "frames" in batch:
        height, width = batch["frames"].shape[2:4]

        def augmented_example(frames: Array, key: Array) -> Array:
            return augmented(frames, random_factors(key, amounts, height, width), amounts)

        frames = jax.vmap(augmented_example)(batch["frames"], stream_keys(keys, AUGMENTATION))
        inputs["frames"] = normalized(frames, frontend["normalization"])
    if "audio" in batch:
        sound_keys = stream_keys(keys, SOUND)
        inputs |= _sound_inputs(frontend, settings, batch, sound_amounts, sound_keys)
    return inputs


def evaluation_inputs(config: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Returns normalised inputs of a model, as `training_inputs` gives them, without augmentation.

    `batch` needs no `seed` here.
    """
    frontend, settings = _checked(config, batch)
    inputs = {}
    if "frames" in batch:
        inputs["frames"] = normalized(batch["frames"], frontend["normalization"])
    if "audio" in batch:
        inputs |= _sound_inputs(frontend, settings, batch)
    return inputs


def _sound_inputs(
    frontend: Mapping[str, Any],
    settings: spectrogram.Settings,
    batch: Mapping[str, Array],
    amounts: Mapping[str, Any] | None = None,
    keys: Array | None = None,
) -> dict[str, Array]:
    """Returns segments of the sound, augmented with `amounts` (and then typed keys [B])."""
    audio, length = batch["audio"], batch["audio_length"]
    samples = spectrogram.samples_of(audio, length)
    # Before the augmentation: a random gain that came first would be undone.
    if frontend.get("level", "off") == "rms":
        samples = levelled(samples, length)
    if amounts is not None:
        frames = spectrogram.num_frames(settings, length)
        factors = jax.vmap(
            lambda key, frames: sound.random_factors(key, amounts, settings, frames)
        )(keys, frames)
        samples = jax.vmap(lambda *x: sound.changed_samples(*x, amounts))(samples, length, factors)
    values = spectrogram.frames_of(settings, samples, length)
    if amounts is not None:
        values = jax.vmap(sound.masked)(values, factors)
    return {
        "audio": spectrogram.segments_of(settings, values, audio.shape[1]),
        "audio_segments": spectrogram.num_segments(settings, length),
    }


def _checked(
    config: Any, batch: Mapping[str, Array]
) -> tuple[Mapping[str, Any], spectrogram.Settings]:
    frontend = config.frontend
    known = ("augment", "level", "normalization", "sound", "spectrogram")
    check_known("frontend", frontend, known)
    # Runs made before 2026-12 have no such field.
    checked_level(frontend.get("level", "off"))
    if not {"frames", "audio"} & set(batch):
        raise ValueError(f"the batch has {', '.join(sorted(batch))}; expected frames or audio")
    if "frames" in batch:
        _check_frames(frontend, batch["frames"])
    return frontend, spectrogram.checked_settings(frontend.get("spectrogram", {}))


def _check_frames(frontend: Mapping[str, Any], frames: Array) -> None:
    if frontend.get("normalization") not in NORMALIZATIONS:
        raise ValueError(
            f"frontend.normalization is {frontend.get('normalization')!r}; expected one of "
            f"{', '.join(NORMALIZATIONS)}"
        )
    if frames.dtype != "uint8" or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(
            f"batch['frames'] is {frames.dtype} {list(frames.shape)}; expected uint8 [B,T,H,W,3]"
        )
