"""Looks: the frames of a clip in which faces are searched, more of them where faces move."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.faces.boxes import overlap
from data_prep.faces.colours import SAME, colours, same_colours
from data_prep.faces.detector import Detector
from data_prep.frame_times import nearest_frames

LEAST_LOOKS = 8
# Between two looks whose boxes do not agree there is a third, so many times over.
_MOST_ROUNDS = 5
# Boxes of one face, a look apart, that agree: it moved by less than a fifth of its side.
_AGREE = 0.5
# Looks are kept this small, for colours and motion.
_KEPT_LONG_SIDE = 320


@dataclass(frozen=True)
class Look:
    """One frame in which faces were searched.

    frame: its index.
    time: seconds.
    boxes: float32 [n, 4] in source pixels.
    picture: uint8 [h, w, 3], the frame, shrunk.
    scale: pixels of `picture` over those of the source.
    """

    frame: int
    time: float
    boxes: np.ndarray
    picture: np.ndarray
    scale: float

    def colours(self, box: np.ndarray) -> np.ndarray:
        """Returns the colours of a box [4] in source pixels, see `colours.colours`."""
        return colours(self.picture, box * self.scale)


def look_times(timestamps: np.ndarray) -> np.ndarray:
    """Returns when faces are searched at first: 8 times, in a long clip once a second.

    Args:
      timestamps: float [F], ascending, seconds.

    Returns:
      float64 [n], evenly spaced from the first frame to the last.
    """
    if not len(timestamps):
        return np.zeros(0)
    first, last = float(timestamps[0]), float(timestamps[-1])
    return np.linspace(first, last, max(LEAST_LOOKS, 1 + int(np.ceil(last - first))))


def look(frames: Sequence[np.ndarray], timestamps: np.ndarray, detector: Detector) -> list[Look]:
    """Searches faces in evenly spaced moments of a clip, then where its boxes do not agree.

    Args:
      frames: F uint8 arrays [H, W, 3], RGB; read in order, a few times over.
      timestamps: float [F], ascending, seconds.
      detector: finds the faces of one frame.
    """
    looks: dict[int, Look] = {}
    wanted = np.unique(nearest_frames(timestamps, look_times(timestamps)))
    for _ in range(1 + _MOST_ROUNDS):
        for frame in wanted.tolist():
            looks[frame] = _look_at(frames[frame], frame, float(timestamps[frame]), detector)
        ordered = [looks[frame] for frame in sorted(looks)]
        middles = [
            (one.time + other.time) / 2
            for one, other in itertools.pairwise(ordered)
            if other.frame - one.frame > 1 and not _agree(one, other)
        ]
        wanted = np.setdiff1d(nearest_frames(timestamps, np.array(middles)), list(looks))
        if not len(wanted):
            break
    return [looks[frame] for frame in sorted(looks)]


def _look_at(image: np.ndarray, frame: int, time: float, detector: Detector) -> Look:
    scale = min(1.0, _KEPT_LONG_SIDE / max(image.shape[:2]))
    picture = image
    if scale < 1:
        picture = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return Look(frame, time, detector(image), picture, picture.shape[1] / image.shape[1])


def _agree(one: Look, other: Look) -> bool:
    """Returns whether every box of one look has its like in the other, in place and colours."""
    if len(one.boxes) != len(other.boxes):
        return False
    return all(
        any(overlap(a, b) > _AGREE and _alike(one, a, other, b) for b in other.boxes)
        for a in one.boxes
    )


def _alike(one: Look, box: np.ndarray, other: Look, other_box: np.ndarray) -> bool:
    return same_colours(one.colours(box), other.colours(other_box)) > SAME
