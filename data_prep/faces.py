"""The face of a clip: detectors, the track through its frames, and the crop."""

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from data_prep.errors import MissingModality, UserError

DETECTORS = ("haar", "mtcnn")
SAMPLES = 8
# Frames are searched at this size: faces down to an eighth of the short side are still found.
_SEARCH_LONG_SIDE = 640
_SMALLEST_FACE = 1 / 8
# Two boxes of one face in neighbouring sampled frames overlap by more than this.
_SAME_FACE_IOU = 0.2
# A cascade now and then takes a wall for a face, but not in a quarter of the frames.
_LEAST_SHARE = 1 / 4


class Detector(Protocol):
    """Finds faces: uint8 [H, W, 3] RGB -> float32 [n, 4] boxes (x0, y0, x1, y1) in pixels."""

    def __call__(self, frame: np.ndarray) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True)
class Track:
    """The box of one face through a clip of F frames.

    boxes: float32 [F, 4], square, smoothed (x0, y0, x1, y1) in source pixels; may leave the frame.
    found: bool [F]; at a sampled frame, whether the face was detected there; between two sampled
        frames, whether it was detected in both, so that the box is not guessed.
    """

    boxes: np.ndarray
    found: np.ndarray


@functools.lru_cache(maxsize=2)
def load_detector(name: str) -> Detector:
    """Returns the detector of that name, loaded once per process.

    Raises:
      UserError: unknown name, or its package is not installed.
    """
    check_detector(name)
    return _HaarDetector() if name == "haar" else _MtcnnDetector()


def check_detector(name: str) -> None:
    """Raises UserError unless the detector can be loaded; imports nothing heavy."""
    if name not in DETECTORS:
        raise UserError(f"unknown face detector {name!r}, expected one of {', '.join(DETECTORS)}")
    if name == "mtcnn" and not (_installed("mtcnn") and _installed("tensorflow")):
        raise UserError(
            "the mtcnn detector is not installed, expected the packages mtcnn and tensorflow; "
            "pip install 'aver_jax[mtcnn]', or use --detector haar"
        )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class _HaarDetector:
    """OpenCV's frontal face cascade (Viola and Jones 2001)."""

    def __init__(self) -> None:
        file = Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(file))
        if self._cascade.empty():
            raise UserError(f"OpenCV has no {file.name}; install opencv-python-headless>=4.10,<5")

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        scale = max(1.0, max(gray.shape) / _SEARCH_LONG_SIDE)
        if scale > 1:
            gray = cv2.resize(gray, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        smallest = max(24, int(min(gray.shape) * _SMALLEST_FACE))
        found = self._cascade.detectMultiScale(
            gray, scaleFactor=1.1, minNeighbors=5, minSize=(smallest, smallest)
        )
        return _corners(np.asarray(found, np.float32).reshape(-1, 4) * np.float32(scale))


class _MtcnnDetector:
    """MTCNN (Zhang et al. 2016) of the `mtcnn` package; the only place that loads TensorFlow."""

    def __init__(self) -> None:
        import os

        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        # Clips are spread over processes already.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
        from mtcnn import MTCNN

        self._mtcnn = MTCNN(device="CPU:0")

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        scale = max(1.0, max(frame.shape) / _SEARCH_LONG_SIDE)
        if scale > 1:
            frame = cv2.resize(
                frame, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA
            )
        faces = self._mtcnn.detect_faces(frame) or []
        boxes = [face["box"] for face in faces if face["confidence"] >= 0.9]
        return _corners(np.asarray(boxes, np.float32).reshape(-1, 4) * np.float32(scale))


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def sample_count(timestamps: np.ndarray) -> int:
    """Returns in how many frames the face is searched: 8, in a long clip one a second.

    Args:
      timestamps: float [F], ascending, seconds.
    """
    seconds = float(timestamps[-1] - timestamps[0]) if len(timestamps) else 0.0
    return max(SAMPLES, 1 + int(np.ceil(seconds)))


def sample_indices(frames: int, samples: int = SAMPLES) -> np.ndarray:
    """Returns evenly spaced frames, first and last included: int [min(frames, samples)]."""
    return np.unique(np.round(np.linspace(0, frames - 1, samples)).astype(int))


def track_face(frames: Sequence[np.ndarray], detector: Detector, samples: int = SAMPLES) -> Track:
    """Follows the face that is seen in most of the evenly sampled frames.

    Of equally long tracks the larger face is taken. Its boxes are made square, interpolated
    linearly from the sampled frames to all, and smoothed with a Gaussian of half their spacing.

    Args:
      frames: F uint8 arrays [H, W, 3], RGB.
      detector: finds the faces of one frame.
      samples: number of frames in which to look.

    Raises:
      MissingModality: no face, or in less than a quarter of the sampled frames.
    """
    indices = sample_indices(len(frames), samples)
    hits = longest_track([detector(frames[i]) for i in indices])
    needed = int(np.ceil(_LEAST_SHARE * len(indices)))
    if len(hits) < needed:
        least = f", at least {needed} needed" if hits else ""
        raise MissingModality(
            f"no face found ({len(hits)} of {len(indices)} sampled frames{least})"
        )
    seen = indices[list(hits)]
    return Track(
        boxes=interpolate_boxes(seen, squares(np.stack(list(hits.values()))), len(frames)),
        found=np.interp(np.arange(len(frames)), indices, np.isin(indices, seen)) == 1,
    )


def longest_track(detections: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Links the boxes of successive frames and returns the track with the most of them.

    Args:
      detections: per frame float32 [n, 4] boxes.

    Returns:
      {position in `detections`: float32 [4] box}, in order; empty when there are no boxes.
    """
    tracks: list[dict[int, np.ndarray]] = []
    for position, boxes in enumerate(detections):
        pairs = [
            (overlap(list(track.values())[-1], box), t, b)
            for t, track in enumerate(tracks)
            for b, box in enumerate(boxes)
        ]
        free_boxes = set(range(len(boxes)))
        for iou, t, b in sorted(pairs, reverse=True):
            if iou > _SAME_FACE_IOU and position not in tracks[t] and b in free_boxes:
                tracks[t][position] = boxes[b]
                free_boxes.remove(b)
        tracks += [{position: boxes[b]} for b in sorted(free_boxes)]
    return max(tracks, key=lambda track: (len(track), _mean_area(track)), default={})


def _mean_area(track: dict[int, np.ndarray]) -> float:
    return float(np.mean([(b[2] - b[0]) * (b[3] - b[1]) for b in track.values()]))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the intersection over union of two boxes [4], in [0, 1]."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    intersection = float(np.prod(np.maximum(sides, 0)))
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return intersection / (areas - intersection) if areas > intersection else 0.0


def squares(boxes: np.ndarray) -> np.ndarray:
    """Returns float64 [n, 3] of boxes [n, 4]: centre x, centre y and the longer side."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.concatenate([centres, sides], axis=1).astype(np.float64)


def interpolate_boxes(positions: np.ndarray, found: np.ndarray, frames: int) -> np.ndarray:
    """Returns boxes of every frame from those of a few.

    Args:
      positions: int [n], increasing frame indices.
      found: float [n, 3], centre x, centre y, side (`squares`).
      frames: number of frames F.

    Returns:
      float32 [F, 4]; linear between the positions, constant outside, smoothed along time.
    """
    found = found.copy()
    if len(found) >= 3:
        # One detection of another size is an error of the detector, not a step of the actor.
        padded = np.pad(found[:, 2], 1, mode="edge")
        found[:, 2] = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    every = np.arange(frames)
    paths = np.stack([np.interp(every, positions, values) for values in found.T], axis=1)
    if len(positions) > 1:
        paths = smooth(paths, float(positions[-1] - positions[0]) / (len(positions) - 1) / 2)
    half = paths[:, 2:] / 2
    return np.concatenate([paths[:, :2] - half, paths[:, :2] + half], axis=1).astype(np.float32)


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths [F, n] along F by a Gaussian, sigma in frames, the ends continued."""
    radius = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="edge")
    columns = [np.convolve(column, kernel / kernel.sum(), mode="valid") for column in padded.T]
    return np.stack(columns, axis=1)


def crop(frame: np.ndarray, box: np.ndarray, margin: float, size: int) -> np.ndarray:
    """Returns the square around a box, resized; beyond the frame its edge is repeated.

    Args:
      frame: uint8 [H, W, 3].
      box: float [4] (x0, y0, x1, y1) in pixels of the frame.
      margin: side of the crop over the longer side of the box.
      size: side of the result in pixels.

    Returns:
      uint8 [size, size, 3]; shrunk by area averages, enlarged linearly.
    """
    height, width = frame.shape[:2]
    x, y, side = squares(np.asarray(box)[None])[0]
    side = max(1, round(side * margin))
    # A box whose centre left the frame would have no pixel to repeat.
    left = round(float(np.clip(x, 0, width - 1)) - side / 2)
    top = round(float(np.clip(y, 0, height - 1)) - side / 2)
    inside = frame[max(top, 0) : top + side, max(left, 0) : left + side]
    padding = (
        max(-top, 0),
        max(top + side - height, 0),
        max(-left, 0),
        max(left + side - width, 0),
    )
    if any(padding):
        inside = cv2.copyMakeBorder(inside, *padding, cv2.BORDER_REPLICATE)
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(inside, (size, size), interpolation=method)
