"""What a model may take from a record: its own modalities, and only frames with a known face."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.modality import Modality
from data_prep.frame_times import lasting

Span = tuple[float, float]
# Between frames with a known face, less than this is no gap.
_LEAST_GAP = 0.1


def known_part(record: Mapping[str, Any], modalities: Sequence[Modality]) -> dict[str, Any]:
    """Returns the record without what a model does not read.

    Frames in which the face was not found, or is only guessed to be, are left out, so that a wall
    never passes for a face; frames of a model of sound, and sound of a model of the face, too: a
    prediction from the one does not depend on the other.

    Args:
      record: a prepared record.
      modalities: of the model.
    """
    part = dict(record)
    times = np.asarray(record["timestamps"])
    found = np.asarray(record.get("face_found", ()), bool)
    if Modality.VIDEO not in modalities:
        found = np.zeros(len(times), bool)
    elif len(found) != len(times):
        found = np.ones(len(times), bool)
    part["lasting"] = lasting_of(record)[found]
    if not found.all():
        part["timestamps"], part["face_found"] = times[found], found[found]
        part["frames"] = [record["frames"][frame] for frame in np.flatnonzero(found)]
    if Modality.AUDIO not in modalities:
        part["pcm"] = b""
    return part


def on_grid(record: Mapping[str, Any], grid: np.ndarray) -> dict[str, Any]:
    """Returns the record with some of its frames only; where it has frames stays the same.

    Args:
      record: of `known_part`.
      grid: int [G], ascending indices of frames; they may repeat.
    """
    return dict(record) | {
        "frames": [record["frames"][frame] for frame in grid],
        "timestamps": record["timestamps"][grid],
        "extent": video_extent(record),
    }


def lasting_of(record: Mapping[str, Any]) -> np.ndarray:
    """Returns for how many seconds each frame of a record is shown, float64 [F]."""
    return record["lasting"] if "lasting" in record else lasting(record["timestamps"])


def video_extent(record: Mapping[str, Any]) -> Span | None:
    """Returns (start, stop) seconds from the first frame to the end of the last; None without."""
    times = record["timestamps"]
    if not len(times):
        return None
    if "extent" in record:
        return record["extent"]
    return float(times[0]), float(times[-1]) + float(lasting_of(record)[-1])


def video_stretches(record: Mapping[str, Any]) -> list[Span]:
    """Returns the (start, stop) seconds in which there are frames without a gap, ascending."""
    times = np.asarray(record["timestamps"], np.float64)
    if not len(times):
        return []
    stops = times + lasting_of(record)
    breaks = np.flatnonzero(times[1:] - stops[:-1] > _LEAST_GAP) + 1
    return [
        (float(times[part[0]]), float(stops[part[-1]]))
        for part in np.split(np.arange(len(times)), breaks)
    ]
