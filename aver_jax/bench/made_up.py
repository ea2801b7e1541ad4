"""A dataset of made-up clips, for the input pipeline: CREMA-D's length and stored size."""

from pathlib import Path

import cv2
import numpy as np

from data_prep.dataset import DatasetWriter


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
