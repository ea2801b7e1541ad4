"""Face detectors: boxes of the faces in one frame."""

import functools
import importlib.util
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from data_prep.errors import UserError

DETECTORS = ("haar", "mtcnn")
# Frames are searched at this size: faces down to an eighth of the short side are still found.
_SEARCH_LONG_SIDE = 640
_SMALLEST_FACE = 1 / 8


class Detector(Protocol):
    """Finds faces: uint8 [H, W, 3] RGB -> float32 [n, 4] boxes (x0, y0, x1, y1) in pixels."""

    def __call__(self, frame: np.ndarray) -> np.ndarray: ...  # noqa: D102


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
