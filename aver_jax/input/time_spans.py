"""Where in a clip its picture and its sound are, and which seconds of it are answered from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.input.clips import SAMPLE_RATE, clip_window
from aver_jax.input.sampling import clip_seconds

Span = tuple[float, float]

# Keys of a model's inputs, and what they are called in a clip and in the model's branches.
NAMES = {"frames": "video", "audio": "audio"}
# What people call them.
WORDS = {"frames": "picture", "audio": "sound"}
# An overlap of less seconds is rounding.
_LEAST = 1e-3


def seconds_of(record: Mapping[str, Any]) -> float:
    """Length of a clip in seconds, see `clip_seconds`."""
    return clip_seconds(record["timestamps"], _samples(record), SAMPLE_RATE)


def extents(record: Mapping[str, Any]) -> dict[str, Span]:
    """(start, stop) seconds of a clip's "frames" and "audio"; what it lacks is left out."""
    times, found = record["timestamps"], {}
    if len(times):
        found["frames"] = (float(times[0]), clip_seconds(times, 0, SAMPLE_RATE))
    if samples := _samples(record):
        found["audio"] = (0.0, samples / SAMPLE_RATE)
    return found


def shared(record: Mapping[str, Any], used: Sequence[str]) -> Span | None:
    """(start, stop) seconds where all of `used` are there at once; None if they never are."""
    found = extents(record)
    start = max(found[name][0] for name in used)
    stop = min(found[name][1] for name in used)
    return (start, stop) if stop - start > _LEAST else None


def window(record: Mapping[str, Any], used: Sequence[str], max_seconds: float) -> Span:
    """(start, stop) seconds that a clip's answer is made from.

    The whole clip, or the middle `max_seconds` of a longer one, as in training and evaluation. That
    middle is moved as little as it takes to hold as much as possible of where all of `used` are: a
    second of sound at the start of a long film would otherwise not be heard.
    """
    first, last = clip_window(record, max_seconds)
    both = shared(record, used)
    if both is None:
        return first, last
    length, (start, stop) = last - first, both
    near = sorted((start, stop - length))
    moved = float(np.clip(np.clip(first, *near), 0, max(0.0, seconds_of(record) - length)))
    return (first, last) if moved == first else (moved, moved + length)


def held(record: Mapping[str, Any], name: str, span: Sequence[float]) -> float:
    """Seconds of a modality ("frames" or "audio") in a span of a clip."""
    start, stop = extents(record).get(name, (0.0, 0.0))
    overlap = min(stop, span[1]) - max(start, span[0])
    return float(overlap) if overlap > _LEAST else 0.0


def _samples(record: Mapping[str, Any]) -> int:
    return len(record["pcm"]) // np.dtype(np.int16).itemsize
