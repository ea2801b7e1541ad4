"""The faces of a clip: detectors, their tracks through time, and the crop."""

from data_prep.faces.boxes import crop, overlap, squares
from data_prep.faces.detector import DETECTORS, Detector, check_detector, load_detector
from data_prep.faces.follow import LEAST_FACE_SECONDS, Track, follow_faces
from data_prep.faces.looks import look_times

__all__ = [
    "DETECTORS",
    "LEAST_FACE_SECONDS",
    "Detector",
    "Track",
    "check_detector",
    "crop",
    "follow_faces",
    "load_detector",
    "look_times",
    "overlap",
    "squares",
]
