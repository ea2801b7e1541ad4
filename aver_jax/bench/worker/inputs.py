"""Inputs of the cases: experiments, models, parameters, batches and a dataset, all synthetic."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from aver_jax.bench.cases import MODEL_TASKS, Case
from aver_jax.config import base_config
from aver_jax.frontend import augment
from aver_jax.frontend.presets import THESIS
from aver_jax.models import build_model, init_variables
from aver_jax.models.param_paths import parameter_path
from data_prep.dataset import DatasetWriter

NUM_CLASSES = 6
_SAMPLE_RATE = 16_000  # Hz
# Three steps of it change a loss by far more than rounding does, and by far less than chaos would.
_LEARNING_RATE = 3e-5


def experiment(case: Case) -> ConfigDict:
    """Returns the config of a case: constant rate, no dropout, no augmentation but its own case's.

    Spectrograms are the thesis', standardised as configs/mrpn.py does.
    """
    config = base_config()
    config.data.modalities = case.modalities
    config.data.num_frames = case.num_frames
    config.data.image_size = case.image_size
    config.data.max_seconds = case.seconds
    config.model = ConfigDict(case.model)
    config.frontend.normalization = "per_clip"
    config.frontend.spectrogram.mean = 0.05
    config.frontend.spectrogram.deviation = 0.16
    amounts = THESIS if case.task == "augmentation" else {}
    config.frontend.augment = ConfigDict(augment.OFF | amounts)
    config.batch_size = case.batch_size
    config.optimizer.lr = _LEARNING_RATE
    config.schedule.name = "constant"
    config.schedule.warmup_epochs = 0.0
    config.label_smoothing = 0.1
    return config


@functools.lru_cache(1)
def _model(fields: tuple[tuple[str, Any], ...]) -> Any:
    return build_model(dict(fields), NUM_CLASSES)


def model_of_case(case: Case) -> Any:
    """Returns the flax module of a case that has a model."""
    # Lists after a trip through JSON; a module's fields must have a hash.
    return _model(tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in case.model.items()))


def noisy_variables(case: Case) -> dict[str, Any]:
    """Returns variables, float32 numpy arrays, in which no layer does nothing.

    Fresh weights have layers of zeros and scales of one, and a wrong layer would go unseen; with
    noise on every parameter each takes part in what the sides must agree on.
    """
    rng = np.random.default_rng(0)

    def noisy(path: tuple[Any, ...], leaf: jax.Array) -> np.ndarray:
        name, value = parameter_path(path), np.asarray(leaf, np.float32)
        if name.endswith("/var"):
            return rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        return value + rng.normal(0, 0.02, value.shape).astype(np.float32)

    variables = init_variables(model_of_case(case), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(noisy, variables)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a nested dict by name: "params/blocks/attn/qkv/kernel"."""
    return {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def made_up_batch(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a batch of the case's modalities (see docs/architecture.md), all of it valid.

    Frames are coarse patterns with grain, different in every frame; sound is noise whose loudness
    changes, in clips of half to all of `case.seconds`.
    """
    rng = np.random.default_rng(seed)
    size = case.batch_size
    batch: dict[str, np.ndarray] = {}
    if "frames" in case.modalities:
        shape = (size, case.num_frames, case.image_size, case.image_size, 3)
        cells = -(-case.image_size // 8)
        coarse = rng.integers(0, 224, (*shape[:2], cells, cells, 3), np.uint8)
        coarse = coarse.repeat(8, 2).repeat(8, 3)[:, :, : shape[2], : shape[3]]
        batch["frames"] = coarse + rng.integers(0, 32, shape, np.uint8)
        times = np.arange(case.num_frames, dtype=np.float32) / 4
        batch["frame_times"] = np.broadcast_to(times, shape[:2]).copy()
    if "audio" in case.modalities:
        samples = round(case.seconds * _SAMPLE_RATE)
        length = rng.integers(samples // 2, samples + 1, size).astype(np.int32)
        length[0] = samples
        loudness = rng.uniform(500, 6000, (size, 16)).repeat(-(-samples // 16), 1)[:, :samples]
        audio = rng.normal(0, 1, (size, samples)) * loudness
        audio[np.arange(samples)[None] >= length[:, None]] = 0
        batch["audio"] = np.clip(audio, -32_768, 32_767).astype(np.int16)
        batch["audio_length"] = length
    return batch | {
        "label": rng.integers(0, NUM_CLASSES, size).astype(np.int32),
        "mask": np.ones(size, bool),
        "row": np.arange(size, dtype=np.int32),
        "seed": rng.integers(0, 2**32, size, np.uint32),
    }


def made_up_shapes(case: Case, clips: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of `made_up_batch` with that many clips."""
    arrays = made_up_batch(dataclasses.replace(case, batch_size=1))
    return {n: jax.ShapeDtypeStruct((clips, *a.shape[1:]), a.dtype) for n, a in arrays.items()}


def has_model(case: Case) -> bool:
    """Returns whether a model takes part in the case."""
    return case.task in MODEL_TASKS


def write_dataset(out: Path, clips: int = 48, frames: int = 75, side: int = 224) -> None:
    """Writes smooth random images with grain, of about the 10 KB of a real face crop.

    Args:
      out: folder to make.
      clips: how many.
      frames: of each clip, 30 a second.
      side: pixels of an image.
    """
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 4, (side, side, 3))
    preparation = {"detector": "none", "margin": 1.3, "size": side, "sample_rate": 16_000}
    with DatasetWriter(out, "synthetic", ("ANG", "HAP"), preparation) as writer:
        for clip in range(clips):
            writer.add(_record(rng, grain, clip, frames, side))
        writer.close()


def _record(
    rng: np.random.Generator, grain: np.ndarray, clip: int, frames: int, side: int
) -> dict[str, object]:
    jpegs = []
    for _ in range(frames):
        coarse = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        image = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        jpegs.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return {
        "frames": jpegs,
        "timestamps": np.arange(frames, dtype=np.float32) / 30,
        "face_box": np.zeros((frames, 4), np.float32),
        "face_found": np.ones(frames, bool),
        "source_size": np.array([side, side], np.int32),
        "pcm": np.zeros(frames * 16_000 // 30, "<i2").tobytes(),
        "label": "ANG",
        "age": -1,
        "actor": "1001",
        "clip_id": f"clip{clip:04d}",
        **dict.fromkeys(("intensity", "sentence", "sex"), ""),
        **dict.fromkeys(("vote_voice", "vote_face", "vote_multimodal"), ""),
    }
