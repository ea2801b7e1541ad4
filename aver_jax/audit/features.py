"""What a trivial model sees of a clip: one small still, a mean spectrum, a loudness, a length."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from aver_jax.input import Dataset, decode_image

# Features by name, simplest first, and the group in which a score is quoted: pictures (one, or
# the difference of two), sound without time, level (how loud, how long, how many bytes), table.
GROUPS = {
    "colour": "picture",
    "still 16x16 colour": "picture",
    "still 24x24 standardised": "picture",
    "mean frame 16x16": "picture",
    "last minus first 16x16": "picture",
    "middle minus first 16x16": "picture",
    "mean log spectrum": "sound",
    "loudness": "level",
    "length": "level",
    "bytes": "level",
    "loudness, length, frames": "level",
    "sentence": "table",
}
STILL, SPECTRUM = "still 24x24 standardised", "mean log spectrum"
SPECTRUM_WINDOW = 512  # samples
_OF_SOUND = (SPECTRUM, "loudness", "loudness, length, frames")
_MEANS_OF = 6  # frames


def features_of(
    dataset: Dataset, rows: Sequence[int], progress: Callable[[int], object] | None = None
) -> dict[str, np.ndarray]:
    """Returns each feature of `rows`: name -> float32 [n, D].

    Those of the sound are left out where no clip has any, the sentence where none is known. A clip
    without sound among others counts as silent.

    Args:
      dataset: an open dataset.
      rows: of its index.
      progress: called with 1 after each clip.
    """
    with ThreadPoolExecutor(2) as pool:
        found = []
        for one in pool.map(lambda row: _features(dataset.source[int(row)]), rows):
            found.append(one)
            if progress is not None:
                progress(1)
    heard = any(one.pop("heard") for one in found)
    names = [name for name in GROUPS if name in found[0] and (heard or name not in _OF_SOUND)]
    table = {name: np.stack([one[name] for one in found]) for name in names}
    sentences = dataset.index["sentence"][np.asarray(rows)]
    if len(set(sentences.tolist())) > 1:
        table["sentence"] = (sentences[:, None] == np.unique(sentences)).astype(np.float32)
    return table


def _features(record) -> dict[str, np.ndarray]:
    frames, count = record["frames"], len(record["frames"])
    first, middle, last = (rgb(record, i) for i in _places(count))
    places = np.unique(np.linspace(0, count - 1, _MEANS_OF).round().astype(int))
    some = [rgb(record, place) for place in places.tolist()]
    mean = np.mean([_small(frame.mean(-1), 16) for frame in some], axis=0)
    sizes = [len(jpeg) for jpeg in frames]
    pcm = np.frombuffer(record["pcm"], np.int16).astype(np.float32) / 32768
    sounds = len(pcm) >= SPECTRUM_WINDOW
    samples = pcm if sounds else np.zeros(SPECTRUM_WINDOW, np.float32)
    loudness = np.log(np.sqrt((samples**2).mean()) + 1e-6)
    found = {
        "colour": np.r_[middle.mean((0, 1)), middle.std((0, 1))],
        "still 16x16 colour": _small(middle, 16).ravel(),
        STILL: _standardised(_small(middle.mean(-1), 24)),
        "mean frame 16x16": _standardised(mean),
        "last minus first 16x16": _small((last - first).mean(-1), 16).ravel(),
        "middle minus first 16x16": _small((middle - first).mean(-1), 16).ravel(),
        SPECTRUM: _spectrum(samples),
        "loudness": np.array([loudness]),
        "length": np.array([record["timestamps"][-1], count]),
        "bytes": np.array([np.mean(sizes), np.sum(sizes)]),
        "loudness, length, frames": np.array([loudness, len(pcm), count]),
        "heard": np.array(sounds),
    }
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def _places(count: int) -> Iterator[int]:
    """Yields the frames called first, middle and last: a few from the ends, where clips fade."""
    margin = min(2, (count - 1) // 2)
    yield from (margin, count // 2, count - 1 - margin)


def rgb(record, place: int) -> np.ndarray:
    """Returns a frame of a stored clip, float32 [H, W, 3] of 0 to 255.

    Raises:
      UserError: the image is damaged; names the clip.
    """
    bgr = decode_image(
        record["frames"][place], f"frame {place} of clip {record['clip_id'].decode()}"
    )
    return bgr[..., ::-1].astype(np.float32)


def _small(picture: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


def _standardised(picture: np.ndarray) -> np.ndarray:
    return ((picture - picture.mean()) / (picture.std() + 1e-6)).ravel()


def _spectrum(pcm: np.ndarray) -> np.ndarray:
    blocks = pcm[: len(pcm) // SPECTRUM_WINDOW * SPECTRUM_WINDOW].reshape(-1, SPECTRUM_WINDOW)
    windowed = blocks * np.hanning(SPECTRUM_WINDOW)
    return np.log(np.abs(np.fft.rfft(windowed)).mean(0) + 1e-5)
