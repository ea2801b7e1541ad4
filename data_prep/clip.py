"""One clip prepared: a media file in, a record out, or the reason why not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from data_prep import faces, media
from data_prep.errors import MissingModality, UnusableClip
from data_prep.frame_times import nearest_frames
from data_prep.wording import Note

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Job:
    """A clip to prepare, and what its corpus knows about it ("" or -1: unknown).

    path: media file with the video and, usually, the sound.
    audio_path: sound file that starts with the clip, used when the clip has no sound itself.
    streams: which streams of the file, such as ("v:1", "a:0"); by default see `media.decode`.
    keep_truncated: whether what can be decoded of a file that is cut off is a clip.
    span: (start, stop), the seconds of the file that are the clip; None: all of it.
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
    streams: tuple[str, ...] = ()
    keep_truncated: bool = False
    span: tuple[float, float] | None = None


# What a record does not tell of its job.
_HOW = ("path", "audio_path", "streams", "keep_truncated", "span")


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

    Of several faces the one that is there longest is taken. A pure function of the file: it can be
    mapped by a process pool or by Beam.

    Args:
      job: the clip.
      preparation: detector, margin and size.
      require: modalities that must be there. Without "video" no frame is decoded; sound that is
        not required is taken along when the clip has it.

    Returns:
      The record of `data_prep.dataset.features`, its label a class name: frames (JPEG bytes [F]
      of RGB crops), timestamps float32 [F], face_box float32 [F, 4], face_found bool [F],
      source_size int32 [2], pcm bytes, and the texts of the job. F is 0 without "video". Beside
      them `notes`, texts for a person, which no dataset stores.

    Raises:
      UnusableClip: its text says why; MissingModality if it lacks something of `require`, a face
        among "video".
    """
    return prepare_faces(job, preparation, require, "longest")[0]


def prepare_faces(
    job: Job,
    preparation: Preparation,
    require: Sequence[str] = ("video", "audio"),
    prefer: str = "longest",
) -> list[dict]:
    """Returns a record for every face of a clip, the preferred one first.

    Args:
      job, preparation, require: as of `prepare_clip`.
      prefer: "longest" or "largest", see `faces.follow_faces`.

    Raises:
      UnusableClip: as of `prepare_clip`.
    """
    video = "video" in require
    clip = media.decode(
        job.path, video, True, require=require, audio_path=job.audio_path,
        streams=job.streams, keep_truncated=job.keep_truncated, span=job.span,
    )  # fmt: skip
    texts = {key: value for key, value in vars(job).items() if key not in _HOW}
    rest = {"pcm": clip.pcm.astype("<i2").tobytes(), "timestamps": clip.timestamps, **texts}
    if not video:
        nothing = {
            "frames": [],
            "face_box": np.zeros((0, 4), np.float32),
            "face_found": np.zeros(0, bool),
            "source_size": np.zeros(2, np.int32),
        }
        return [{**nothing, **rest, "notes": clip.notes}]
    detector = faces.load_detector(preparation.detector)
    tracks = faces.follow_faces(clip.frames, clip.timestamps, detector, prefer)
    if not tracks:
        raise MissingModality(
            f"no face found (for {faces.LEAST_FACE_SECONDS:g} s in a row, of "
            f"{float(clip.timestamps[-1] - clip.timestamps[0]):.1f} s)"
        )
    taken = "larger" if prefer == "largest" else "longer seen"
    several = Note(f"{len(tracks)} faces: took the {taken}", "faces")
    records = []
    for track in tracks:
        jpegs, size = _crops(clip.frames, track.boxes, preparation)
        notes = [*clip.notes, *([several] if len(tracks) > 1 else [])]
        if not track.moves:
            notes.append(Note("the face does not move: a photograph?", "video"))
        records.append(
            {
                "frames": jpegs,
                "face_box": track.boxes,
                "face_found": track.found,
                "source_size": np.asarray(size, np.int32),
                **rest,
                "notes": tuple(notes),
            }
        )
    return records


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


def sampled_faces(record: dict, count: int = 8) -> tuple[int, int]:
    """Returns (moments with a known face, moments), evenly spaced in the time of a record."""
    times = np.asarray(record["timestamps"])
    moments = np.linspace(times[0], times[-1], count)
    frames = np.unique(nearest_frames(times, moments))
    return int(np.asarray(record["face_found"])[frames].sum()), len(frames)
