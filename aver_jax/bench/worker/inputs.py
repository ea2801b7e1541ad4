"""The synthetic inputs of a case, from one seed: config, model, weights, batch and dataset."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from aver_jax.bench.cases import Case
from aver_jax.config import base_config
from aver_jax.frontend import augment
from aver_jax.frontend.presets import THESIS
from aver_jax.models import build_model, init_variables
from aver_jax.models.param_paths import parameter_path
from data_prep.dataset import DatasetWriter

NUM_CLASSES = 6
_SAMPLE_RATE = 16_000  # Hz
# Three steps change the loss by much more than rounding does, and do not diverge.
_LEARNING_RATE = 3e-5


def case_config(case: Case) -> ConfigDict:
    """Returns the config of a case: constant learning rate, no dropout.

    Frames are augmented in augmentation cases only. Spectrograms are standardised as in
    configs/mrpn.py.
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


def case_model(case: Case) -> Any:
    """Returns the flax module of a case that has a model."""
    # JSON gives lists, and a module's fields must be hashable.
    return _model(tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in case.model.items()))


def noisy_variables(case: Case) -> dict[str, Any]:
    """Returns variables (float32 numpy arrays) with noise on every parameter.

    Initial weights have zero layers and unit scales, which would hide differences between
    implementations.
    """
    rng = np.random.default_rng(0)

    def noisy(path: tuple[Any, ...], leaf: jax.Array) -> np.ndarray:
        name, value = parameter_path(path), np.asarray(leaf, np.float32)
        if name.endswith("/var"):
            return rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        return value + rng.normal(0, 0.02, value.shape).astype(np.float32)

    variables = init_variables(case_model(case), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(noisy, variables)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a nested dict by name: "params/blocks/attn/qkv/kernel"."""
    return {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def synthetic_batch(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a batch of the case's modalities (see docs/architecture.md), all of it valid.

    Frames are coarse patterns with grain, different in every frame; audio is noise of changing
    loudness, in clips of half to all of `case.seconds`.
    """
    rng = np.random.default_rng(seed)
    size = case.batch_size
    batch: dict[str, np.ndarray] = {}
    if "frames" in case.modalities:
        shape = (size, case.num_frames, case.image_size, case.image_size, 3)
        blocks = -(-case.image_size // 8)
        coarse = rng.integers(0, 224, (*shape[:2], blocks, blocks, 3), np.uint8)
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


def batch_shapes(case: Case, clips: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes and dtypes of `synthetic_batch` with that many clips."""
    arrays = synthetic_batch(dataclasses.replace(case, batch_size=1))
    return {n: jax.ShapeDtypeStruct((clips, *a.shape[1:]), a.dtype) for n, a in arrays.items()}


def write_synthetic_dataset(out: Path, clips: int = 48, frames: int = 75, size: int = 224) -> None:
    """Writes a prepared dataset of smooth random images with grain, stored in about 10 KB each.

    Args:
      out: folder to make.
      clips: how many; by default of CREMA-D's length and stored size.
      frames: per clip, 30 per second.
      size: H = W of an image, pixels.
    """
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 4, (size, size, 3))
    preparation = {"detector": "none", "margin": 1.3, "size": size, "sample_rate": _SAMPLE_RATE}
    with DatasetWriter(out, "synthetic", ("ANG", "HAP"), preparation) as writer:
        for clip in range(clips):
            jpegs = [_jpeg(rng, grain) for _ in range(frames)]
            writer.add(_record(jpegs, f"clip{clip:04d}", size))
        writer.close()


def _jpeg(rng: np.random.Generator, grain: np.ndarray) -> bytes:
    coarse = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, grain.shape[:2], interpolation=cv2.INTER_CUBIC)
    image = np.clip(smooth + grain, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _record(jpegs: list[bytes], clip_id: str, size: int) -> dict[str, object]:
    frames = len(jpegs)
    return {
        "frames": jpegs,
        "timestamps": np.arange(frames, dtype=np.float32) / 30,
        "face_box": np.zeros((frames, 4), np.float32),
        "face_found": np.ones(frames, bool),
        "source_size": np.array([size, size], np.int32),
        "pcm": np.zeros(frames * _SAMPLE_RATE // 30, "<i2").tobytes(),
        "label": "ANG",
        "age": -1,
        "actor": "1001",
        "clip_id": clip_id,
        **dict.fromkeys(("intensity", "sentence", "sex"), ""),
        **dict.fromkeys(("vote_voice", "vote_face", "vote_multimodal"), ""),
    }
