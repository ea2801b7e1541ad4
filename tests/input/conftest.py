"""A dataset whose pixels and samples say which frame of which clip they are."""

import dataclasses

import cv2
import numpy as np
import pytest

from aver_jax.input import ClipShape, Dataset, Loader, open_dataset
from data_prep.dataset import DatasetWriter

CLIPS, SIDE, RATE = 13, 48, 16_000
CLASSES = ("ANG", "HAP", "SAD")


def coded_record(clip: int) -> dict:
    """Clip `clip`: frame f has red 10 f, green 15 clip, blue 200; sample s is worth s."""
    rng = np.random.default_rng(clip)
    count = 18 + clip % 5
    # 25 frames a second, the first 30 ms after the sound, now and then one lost.
    steps = rng.choice([0.04, 0.08], size=count - 1, p=[0.9, 0.1])
    timestamps = (0.03 + np.concatenate([[0.0], np.cumsum(steps)])).astype(np.float32)
    frames = []
    for frame in range(count):
        image = np.full((SIDE, SIDE, 3), (200, 15 * clip, 10 * frame), np.uint8)  # BGR
        frames.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes())
    return {
        "frames": frames,
        "timestamps": timestamps,
        "face_box": np.zeros((count, 4), np.float32),
        "face_found": np.ones(count, bool),
        "source_size": np.array([SIDE, SIDE], np.int32),
        "pcm": np.arange(round(timestamps[-1] * RATE) + 900, dtype="<i2").tobytes(),
        "label": CLASSES[clip % 3],
        "age": -1,
        "actor": f"{1001 + clip % 4}",
        "clip_id": f"clip{clip:02d}",
        "intensity": "",
        "sentence": "IEO",
        "sex": "male" if clip % 2 else "female",
        "vote_voice": "",
        "vote_face": "ANG:HAP" if clip == 0 else "SAD",
        "vote_multimodal": "",
    }


@pytest.fixture(scope="session")
def records() -> list[dict]:
    return [coded_record(clip) for clip in range(CLIPS)]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, records) -> Dataset:
    out = tmp_path_factory.mktemp("input") / "data"
    preparation = {"detector": "haar", "margin": 1.3, "size": SIDE, "sample_rate": RATE}
    with DatasetWriter(out, "synthetic", CLASSES, preparation | {"version": "1.0.0"}) as writer:
        for record in records:
            writer.add(record)
        writer.close()
    return open_dataset(out)


def loader_of(options):
    """A loader of the options that are its own or its clips', and the options left."""
    left = {"image_size": SIDE} | options
    shape, own = {}, {}
    for target, cls in ((shape, ClipShape), (own, Loader)):
        for field in dataclasses.fields(cls):
            if field.name in left:
                target[field.name] = left.pop(field.name)
    return Loader(ClipShape(**shape), **own), left
