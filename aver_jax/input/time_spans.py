"""Spans of a clip: where its video and audio are, and which seconds a prediction is made from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.input.clips import SAMPLE_RATE, clip_window
from aver_jax.input.sampling import clip_seconds
from aver_jax.modality import Modality

Span = tuple[float, float]

# An overlap of less seconds is rounding.
_LEAST = 1e-3


def seconds_of(record: Mapping[str, Any]) -> float:
    """Returns the length of a clip in seconds, see `clip_seconds`."""
    return clip_seconds(record["timestamps"], _samples(record), SAMPLE_RATE)


def extents(record: Mapping[str, Any]) -> dict[Modality, Span]:
    """Returns (start, stop) seconds of each modality of a clip; what it lacks is left out."""
    times, found = record["timestamps"], {}
    if len(times):
        found[Modality.VIDEO] = (float(times[0]), clip_seconds(times, 0, SAMPLE_RATE))
    if samples := _samples(record):
        found[Modality.AUDIO] = (0.0, samples / SAMPLE_RATE)
    return found


def shared(record: Mapping[str, Any], used: Sequence[Modality]) -> Span | None:
    """Returns (start, stop) seconds where all of `used` are there; None if they never are."""
    found = extents(record)
    start = max(found[name][0] for name in used)
    stop = min(found[name][1] for name in used)
    return (start, stop) if stop - start > _LEAST else None


def window(record: Mapping[str, Any], used: Sequence[Modality], max_seconds: float) -> Span:
    """Returns (start, stop) seconds that a clip's prediction is made from.

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


def seconds_within(record: Mapping[str, Any], name: Modality, span: Sequence[float]) -> float:
    """Returns the seconds of a modality in a span of a clip."""
    start, stop = extents(record).get(name, (0.0, 0.0))
    overlap = min(stop, span[1]) - max(start, span[0])
    return float(overlap) if overlap > _LEAST else 0.0


def _samples(record: Mapping[str, Any]) -> int:
    return len(record["pcm"]) // np.dtype(np.int16).itemsize
