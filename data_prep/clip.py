"""One clip prepared: a media file in, a record out, or the reason why not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from data_prep import faces, media
from data_prep.errors import UnusableClip

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Job:
    """A clip to prepare, and what its corpus knows about it ("" or -1: unknown).

    path: media file with the video and, usually, the sound.
    audio_path: sound file that starts with the clip, used when the clip has no sound itself.
    label, vote_voice, vote_face, vote_multimodal: class names; a vote may be a tie ("ANG:DIS").
    """

    path: Path
    clip_id: str = ""
    label: str = ""
    actor: str = ""
    sex: str = ""
    age: int = -1
    intensity: str = ""
    sentence: str = ""
    vote_voice: str = ""
    vote_face: str = ""
    vote_multimodal: str = ""
    audio_path: Path | None = None


@dataclass(frozen=True)
class Preparation:
    """How clips are prepared; kept with a dataset and with every run trained on it.

    detector: "haar" or "mtcnn".
    margin: side of the face crop over the side of the detected face.
    size: side of the stored crops in pixels.
    """

    detector: str = "haar"
    margin: float = 1.3
    size: int = 224

    @classmethod
    def from_json(cls, entries: dict) -> "Preparation":
        """Reads the entries of `preparation.json`, those of the dataset left out."""
        return cls(**{field.name: entries[field.name] for field in fields(cls)})

    def to_json(self) -> dict:
        """Returns entries for `preparation.json`."""
        return {**asdict(self), "sample_rate": media.SAMPLE_RATE, "version": "1.0.0"}


def prepare_clip(
    job: Job, preparation: Preparation, require: Sequence[str] = ("video", "audio")
) -> dict:
    """Decodes a clip, follows its face, and returns the prepared record.

    A pure function of the file: it can be mapped by a process pool or by Beam.

    Args:
      job: the clip.
      preparation: detector, margin and size.
      require: modalities that must be there. Without "video" no frame is decoded; sound that is
        not required is taken along when the clip has it.

    Returns:
      The record of `data_prep.dataset.features`, its label a class name: frames (JPEG bytes [F]
      of RGB crops), timestamps float32 [F], face_box float32 [F, 4], face_found bool [F],
      source_size int32 [2], pcm bytes, and the texts of the job. F is 0 without "video".

    Raises:
      UnusableClip: its text says why; MissingModality if it lacks something of `require`, a face
        among "video".
    """
    video = "video" in require
    clip = media.decode(job.path, video, True, require=require, audio_path=job.audio_path)
    if video:
        samples = faces.sample_count(clip.timestamps)
        track = faces.track_face(clip.frames, faces.load_detector(preparation.detector), samples)
        boxes, found = track.boxes, track.found
        jpegs, size = _crops(clip.frames, boxes, preparation)
    else:
        boxes, found = np.zeros((0, 4), np.float32), np.zeros(0, bool)
        jpegs, size = [], (0, 0)
    return {
        "frames": jpegs,
        "timestamps": clip.timestamps,
        "face_box": boxes,
        "face_found": found,
        "source_size": np.asarray(size, np.int32),
        "pcm": clip.pcm.astype("<i2").tobytes(),
        **{key: value for key, value in vars(job).items() if key not in ("path", "audio_path")},
    }


def _crops(
    frames: Sequence[np.ndarray], boxes: np.ndarray, preparation: Preparation
) -> tuple[list[bytes], tuple[int, int]]:
    jpegs = []
    size = (0, 0)
    for frame, box in zip(frames, boxes, strict=True):
        size = frame.shape[:2]
        image = faces.crop(frame, box, preparation.margin, preparation.size)
        encoded, jpeg = cv2.imencode(
            ".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
        )
        if not encoded:
            raise UnusableClip("a face crop could not be written as JPEG")
        jpegs.append(jpeg.tobytes())
    return jpegs, size


def sampled_faces(record: dict) -> tuple[int, int]:
    """Returns (sampled frames with the face, sampled frames) of a record that has frames."""
    samples = faces.sample_count(record["timestamps"])
    found = record["face_found"][faces.sample_indices(len(record["face_found"]), samples)]
    return int(found.sum()), len(found)
