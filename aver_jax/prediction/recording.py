"""Timelines of recordings of any length: a minute at a time, in flat memory."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from aver_jax.errors import UnusableClip
from aver_jax.modality import Modality
from aver_jax.prediction.prediction import Clip, Prediction
from aver_jax.prediction.predictor import Predictor
from aver_jax.prediction.timeline import Region, Timeline, gaps, joined, timeline
from data_prep.media import MAX_SECONDS

Gap = tuple[float, float, str]
# What is decoded and predicted at a time.
PART_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Recording:
    """What was predicted of a recording.

    Attributes:
      prediction: of its middle, or the part nearest to it that can be predicted.
      line: over all of it.
      gaps: (start, stop, why), seconds without a window.
      unseen: (start, stop), seconds in which no face was found.
      used: the modalities that any window is predicted from.
    """

    prediction: Prediction
    line: Timeline
    gaps: list[Gap]
    unseen: list[tuple[float, float]]
    used: tuple[Modality, ...]


def predict_recording(
    predictor: Predictor,
    path: Path,
    seconds: float,
    streams: Sequence[str] = (),
    prefer: str = "longest",
    window: float | None = None,
    hop: float | None = None,
    tell: Callable[[float], object] = lambda seconds: None,
) -> Recording:
    """Slides a window over a recording, decoding a minute and a window at a time.

    Faces are followed within each part.

    Args:
      predictor: see `timeline`.
      path: the file.
      seconds: its length, `media.recording_seconds`.
      streams, prefer: as of `Predictor.prepare_faces`.
      window: seconds; default: `config.data.min_slice` of `config.data.max_seconds`.
      hop: seconds from one window to the next; default: an eighth of the window.
      tell: called with the seconds of each part that is done.

    Raises:
      UnusableClip: no part of it can be predicted.
    """
    data = predictor.run.config.data
    window = window or data.min_slice * data.max_seconds
    starts = np.arange(0.0, seconds, PART_SECONDS).tolist()
    stops = [*starts[1:], seconds]
    lines: dict[float, Timeline] = {}
    missing: list[Gap] = []
    unseen: list[tuple[float, float]] = []

    def prepared(start: float, stop: float) -> Clip:
        return predictor.prepare_faces(path, streams, prefer, (start, stop))[0]

    for start, stop in zip(starts, stops, strict=True):
        try:
            clip = prepared(start, min(stop + window, seconds))
            line = timeline(predictor, clip, window, hop)
        except UnusableClip as error:
            missing.append((start, stop, str(error)))
        else:
            # Windows that begin in the next part are predicted there.
            lines[start] = _moved(line, start, stop if stop < seconds else np.inf)
            missing += [
                (a + start, min(b + start, stop), why)
                for a, b, why in gaps(clip, line.regions)
                if a + start < stop
            ]
            unseen += [(a + start, b + start) for a, b in unseen_stretches(clip)]
        tell(stop - start)
    if not lines:
        raise UnusableClip(missing[-1][2] if missing else "nothing in it can be decoded")
    line = joined(list(lines.values()))
    used = tuple(name for name in Modality if any(name in some for some in line.used))
    ends = dict(zip(starts, stops, strict=True))
    middle_first = sorted(lines, key=lambda start: abs(start + ends[start] - seconds))
    reason = ""
    for start in middle_first:
        try:
            clip = prepared(start, min(ends[start] + window, seconds))
            prediction = _moved_prediction(predictor.predict_clip(clip), start)
        except UnusableClip as error:
            reason = reason or str(error)
        else:
            return Recording(prediction, line, missing, unseen, used)
    raise UnusableClip(reason)


def unseen_stretches(clip: Clip) -> list[tuple[float, float]]:
    """Returns the (start, stop) seconds of a clip in which no face was found."""
    times, found = clip.record["timestamps"], clip.record["face_found"]
    edges = np.flatnonzero(np.diff(np.r_[True, found, True].astype(int)))
    return [
        (float(times[start]), float(times[min(stop, len(times) - 1)]))
        for start, stop in edges.reshape(-1, 2)
    ]


def _moved_prediction(prediction: Prediction, start: float) -> Prediction:
    window = tuple(second + start for second in prediction.window)
    note = f"longer than {MAX_SECONDS:.0f} s: predicted from {window[0]:.1f} to {window[1]:.1f} s"
    return dataclasses.replace(
        prediction, window=window, whole=window, notes=(*prediction.notes, note)
    )


def _moved(line: Timeline, start: float, stop: float) -> Timeline:
    """Returns the windows that begin before `stop`, on the recording's clock."""
    spans = line.spans + start
    kept = spans[:, 0] < stop - 1e-6
    return Timeline(
        spans[kept],
        tuple(used for used, keep in zip(line.used, kept, strict=True) if keep),
        line.probabilities[kept],
        {name: values[kept] for name, values in line.branches.items()},
        tuple(
            Region(part.start + start, min(part.stop + start, stop), part.used)
            for part in line.regions
            if part.start + start < stop
        ),
    )
