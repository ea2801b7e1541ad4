"""Prepared records and time slices in, the rows of a batch out; training and prediction alike."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.errors import UserError
from aver_jax.input.decode import decode_frames
from aver_jax.input.known import known_part, on_grid, video_extent
from aver_jax.input.sampling import centre_window, frame_indices
from aver_jax.modality import Modality, modalities_of

SAMPLE_RATE = 16_000


@dataclasses.dataclass(frozen=True)
class ClipShape:
    """The static shape of one clip in a batch.

    Attributes:
      num_frames: T.
      image_size: side of a frame, pixels.
      max_seconds: longer clips are cut to their middle; `audio` holds this many seconds.
      modalities: what a batch carries; names are accepted and become `Modality`.
      grid: how many evenly spaced frames of a clip's window are ever looked at (`grid_frames`);
        0: every frame.
    """

    num_frames: int = 8
    image_size: int = 224
    max_seconds: float = 6.0
    modalities: tuple[Modality, ...] = (Modality.VIDEO,)
    grid: int = 0

    def __post_init__(self) -> None:
        names = ", ".join(map(str, self.modalities)) or "empty"
        try:
            object.__setattr__(self, "modalities", modalities_of(self.modalities))
        except ValueError:
            self._refuse_modalities(names)
        if not self.modalities:
            self._refuse_modalities(names)
        for name in ("num_frames", "image_size", "max_seconds"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected more than 0")
        if self.grid < 0:
            raise UserError(f"cache_frames is {self.grid}, expected 0 (every frame) or more")

    @staticmethod
    def _refuse_modalities(names: str) -> None:
        known = ", ".join(Modality)
        raise UserError(f"config.data.modalities is {names}; expected one or more of {known}")

    @classmethod
    def from_config(cls, data: Any, grid: int | None = None) -> "ClipShape":
        """Returns the shape that `config.data` describes; `grid` instead of its `cache_frames`."""
        return cls(
            data.num_frames,
            data.image_size,
            data.max_seconds,
            tuple(data.modalities),
            data.cache_frames if grid is None else grid,
        )

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Name -> (shape, dtype) of what a batch holds of one clip."""
        side, arrays = self.image_size, {}
        if Modality.VIDEO in self.modalities:
            arrays["frames"] = ((self.num_frames, side, side, 3), np.uint8)
            arrays["frame_times"] = ((self.num_frames,), np.float32)
        if Modality.AUDIO in self.modalities:
            arrays["audio"] = ((self.num_samples,), np.int16)
            arrays["audio_length"] = ((), np.int32)
        return arrays

    @property
    def num_samples(self) -> int:
        """S, the length of `audio`."""
        return round(self.max_seconds * SAMPLE_RATE)


# A clip is used from the first to the last second of its face and its sound, unless the face is
# there for less than this share of it: then only where the face is.
LEAST_FACE_SHARE = 0.5


def clip_window(record: Mapping[str, Any], max_seconds: float) -> tuple[float, float]:
    """Returns (start, stop), in seconds on the record's timestamps, of what is used of a clip.

    Args:
      record: of `known.known_part`: what it lacks does not count.
      max_seconds: of a longer one the middle is used.
    """
    samples = len(record["pcm"]) // np.dtype(np.int16).itemsize
    sound = (0.0, samples / SAMPLE_RATE)
    video = video_extent(record)
    if video is None:
        return centre_window(*sound, max_seconds)
    if not samples:
        return centre_window(*video, max_seconds)
    start, stop = min(video[0], sound[0]), max(video[1], sound[1])
    if video[1] - video[0] < LEAST_FACE_SHARE * (stop - start):
        start, stop = video
    return centre_window(start, stop, max_seconds)


def grid_frames(
    record: Mapping[str, Any], window: tuple[float, float], shape: ClipShape
) -> np.ndarray:
    """Returns the frames that a clip's slices choose from, as `sampling.frame_indices` does.

    Args:
      record: a prepared record.
      window: (start, stop) of the clip, seconds (`clip_window`).
      shape: `grid` = G > 0.

    Returns:
      int64 [G], ascending; frames repeat where the window holds fewer.

    Raises:
      UserError: the clip has no frames.
    """
    _check_frames(record)
    return frames_within(record, *window, shape.grid)


def clip_arrays(
    records: Sequence[Mapping[str, Any]],
    slices: Sequence[tuple[float, float]] | np.ndarray,
    shape: ClipShape,
) -> dict[str, np.ndarray]:
    """Returns the modality arrays of a batch.

    A slice is a share of the clip's window: the whole clip, or the middle `max_seconds` of a
    longer one (`clip_window`).

    Args:
      records: B prepared records; each is read once, in order.
      slices: B pairs (start, stop), 0 <= start < stop <= 1; (0, 1) is the whole window.
      shape: shapes and modalities.

    Returns:
      See `span_arrays`.

    Raises:
      UserError: a stored image cannot be decoded.
    """

    def spans() -> Iterator[tuple[Mapping[str, Any], float, float]]:
        for position, (start, stop) in enumerate(slices):
            record = known_part(records[position], shape.modalities)
            first, last = clip_window(record, shape.max_seconds)
            if shape.grid and Modality.VIDEO in shape.modalities:
                grid = grid_frames(record, (first, last), shape)
                record = on_grid(record, grid)
            yield record, first + start * (last - first), first + stop * (last - first)

    return span_arrays(spans(), len(slices), shape)


def span_arrays(
    spans: Iterable[tuple[Mapping[str, Any], float, float]], count: int, shape: ClipShape
) -> dict[str, np.ndarray]:
    """Returns the modality arrays of spans of clips; only the frames that are used are decoded.

    Args:
      spans: B times (prepared record, start, stop), seconds on the record's timestamps; the record
        is of `known.known_part`.
      count: B.
      shape: shapes and modalities.

    Returns:
      With "frames": `frames` uint8 [B,T,H,W,3] RGB and `frame_times` float32 [B,T], seconds from
      the start of the span, at which sample 0 of `audio` lies too. With "audio": `audio` int16
      [B,S], zeros after the end, and `audio_length` int32 [B] (0 where a span has no sound).

    Raises:
      UserError: a stored image cannot be decoded.
    """
    side = shape.image_size
    arrays = {}
    if Modality.VIDEO in shape.modalities:
        arrays["frames"] = np.empty((count, shape.num_frames, side, side, 3), np.uint8)
        arrays["frame_times"] = np.empty((count, shape.num_frames), np.float32)
    if Modality.AUDIO in shape.modalities:
        arrays["audio"] = np.zeros((count, shape.num_samples), np.int16)
        arrays["audio_length"] = np.zeros(count, np.int32)
    for position, (record, start, stop) in enumerate(spans):
        if Modality.VIDEO in shape.modalities:
            _check_frames(record)
            timestamps = record["timestamps"]
            chosen = frames_within(record, start, stop, shape.num_frames)
            decode_clip(record, chosen, shape.image_size, arrays["frames"][position])
            arrays["frame_times"][position] = timestamps[chosen] - start
        if Modality.AUDIO in shape.modalities:
            pcm = np.frombuffer(record["pcm"], "<i2")
            begin, end = span_samples(len(pcm), start, stop, shape)
            arrays["audio"][position, : end - begin] = pcm[begin:end]
            arrays["audio_length"][position] = end - begin
    return arrays


def span_samples(
    num_samples: np.ndarray | int,
    start: np.ndarray | float,
    stop: np.ndarray | float,
    shape: ClipShape,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the samples [begin, end) of spans, at most S of the `num_samples` that there are.

    Numbers, or arrays [b] of as many spans.
    """
    begin = np.minimum(np.rint(start * SAMPLE_RATE).astype(np.int64), num_samples)
    end = np.minimum(np.rint(stop * SAMPLE_RATE).astype(np.int64), begin + shape.num_samples)
    return begin, np.maximum(begin, np.minimum(end, num_samples))


def decode_clip(
    record: Mapping[str, Any], frames: Iterable[int], side: int, out: np.ndarray
) -> None:
    """Decodes some frames of a record into `out`, uint8 [T,side,side,3].

    Raises:
      UserError: a stored image cannot be decoded; it names the clip.
    """
    try:
        decode_frames([record["frames"][frame] for frame in frames], side, out)
    except UserError as error:
        raise UserError(f"clip {_name(record)}: {error}") from None


def frames_within(record: Mapping[str, Any], start: float, stop: float, count: int) -> np.ndarray:
    """Returns `frame_indices` of that part of a span in which the record has frames."""
    first, last = video_extent(record)
    within = max(start, first), min(stop, last)
    # A span beside all frames gets the nearest one.
    span = within if within[0] < within[1] else (start, stop)
    return frame_indices(record["timestamps"], *span, count)


def _check_frames(record: Mapping[str, Any]) -> None:
    if not len(record["timestamps"]):
        raise UserError(
            f"clip {_name(record)} has no frames, but the model looks at frames; "
            "give a clip with a picture, or a model of sound alone"
        )


def _name(record: Mapping[str, Any]) -> str:
    # Bytes where it was read from a dataset, a string where it was just prepared.
    clip = record["clip_id"]
    return clip.decode() if isinstance(clip, bytes) else clip
