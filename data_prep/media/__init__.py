"""Media files in and out (PyAV): upright frames of square pixels, their times, and the sound."""

from data_prep.audible import SAMPLE_RATE
from data_prep.media.reader import MAX_SECONDS, Media, decode, recording_seconds
from data_prep.media.write import write_clip

__all__ = [
    "MAX_SECONDS",
    "SAMPLE_RATE",
    "Media",
    "decode",
    "recording_seconds",
    "write_clip",
]
