"""Spans of a clip: where its video and audio are, and which seconds a prediction is made from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.input.clips import SAMPLE_RATE, clip_window
from aver_jax.input.known import Span, lasting_of, video_extent, video_stretches
from aver_jax.modality import Modality
from data_prep.audible import audible_stretches

# An overlap of less seconds is rounding.
_LEAST = 1e-3


def seconds_of(record: Mapping[str, Any]) -> float:
    """Returns the length of a clip in seconds, from 0 to where its frames and sound have ended."""
    return max((stop for _, stop in extents(record).values()), default=0.0)


def extents(record: Mapping[str, Any]) -> dict[Modality, Span]:
    """Returns (start, stop) seconds of each modality of a clip; what it lacks is left out."""
    found = {}
    if (video := video_extent(record)) is not None:
        found[Modality.VIDEO] = video
    if samples := _samples(record):
        found[Modality.AUDIO] = (0.0, samples / SAMPLE_RATE)
    return found


def stretches(record: Mapping[str, Any], name: Modality) -> list[Span]:
    """Returns the (start, stop) seconds in which a modality is there, ascending.

    Of the picture those without a gap, of the sound those without a silence of a second or more.
    """
    if name == Modality.VIDEO:
        return video_stretches(record)
    return audible_stretches(np.frombuffer(record["pcm"], "<i2"))


def shared_stretches(record: Mapping[str, Any], used: Sequence[Modality]) -> list[Span]:
    """Returns the (start, stop) seconds in which all of `used` are there without a gap."""
    found: list[Span] = [(0.0, float("inf"))]
    for name in used:
        found = [
            (max(a, c), min(b, d))
            for a, b in found
            for c, d in stretches(record, name)
            if min(b, d) - max(a, c) > _LEAST
        ]
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
    ends = extents(record).values()
    earliest, latest = min(a for a, _ in ends), max(b for _, b in ends)
    moved = float(np.clip(np.clip(first, *near), earliest, max(earliest, latest - length)))
    return (first, last) if moved == first else (moved, moved + length)


def seconds_within(record: Mapping[str, Any], name: Modality, span: Sequence[float]) -> float:
    """Returns the seconds of a modality in a span of a clip."""
    if name == Modality.VIDEO:
        starts = np.asarray(record["timestamps"], np.float64)
        stops = starts + lasting_of(record)
    else:
        starts, stops = (np.array([end]) for end in extents(record).get(name, (0.0, 0.0)))
    overlap = float(np.maximum(0, np.minimum(stops, span[1]) - np.maximum(starts, span[0])).sum())
    return overlap if overlap > _LEAST else 0.0


def _samples(record: Mapping[str, Any]) -> int:
    return len(record["pcm"]) // np.dtype(np.int16).itemsize
