"""Timelines of recordings of any length: a minute at a time, in flat memory."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from aver_jax.errors import UnusableClip
from aver_jax.modality import Modality
from aver_jax.prediction.prediction import Clip, Prediction
from aver_jax.prediction.predictor import Predictor
from aver_jax.prediction.timeline import Region, Timeline, gaps, timeline
from data_prep.media import MAX_SECONDS, recording_seconds

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


def is_recording(path: Path) -> bool:
    """Returns whether a file is longer than a clip may be; UnusableClip if it is none."""
    return recording_seconds(path) > MAX_SECONDS


def predict_recording(
    predictor: Predictor,
    path: Path,
    streams: Sequence[str] = (),
    prefer: str = "longest",
    window: float | None = None,
    hop: float | None = None,
    tell: Callable[[float, float], None] = lambda done, whole: None,
) -> Recording:
    """Slides a window over a recording, decoding a minute and a window at a time.

    Faces are followed within each part.

    Args:
      predictor: see `timeline`.
      path, streams, prefer: as of `Predictor.prepare_faces`.
      window: seconds; default: `config.data.min_slice` of `config.data.max_seconds`.
      hop: seconds from one window to the next; default: an eighth of the window.
      tell: called with the seconds that are done and the whole.

    Raises:
      UnusableClip: no part of it can be predicted.
    """
    whole, data = recording_seconds(path), predictor.run.config.data
    window = window or data.min_slice * data.max_seconds
    lines: list[Timeline] = []
    missing: list[Gap] = []
    unseen: list[tuple[float, float]] = []
    nearest: tuple[float, Prediction] | None = None
    reason = ""
    for start in np.arange(0.0, whole, PART_SECONDS).tolist():
        stop = min(start + PART_SECONDS, whole)
        is_last = stop >= whole
        span = (start, stop if is_last else min(stop + window, whole))
        tell(start, whole)
        try:
            clip = predictor.prepare_faces(path, streams, prefer, span)[0]
            away = abs((start + stop - whole) / 2)
            if nearest is None or away < nearest[0]:
                nearest = away, _moved_prediction(predictor.predict_clip(clip), start)
            line = timeline(predictor, clip, window, hop)
        except UnusableClip as error:
            reason = str(error)
            missing.append((start, stop, reason))
            continue
        # Windows that begin in the next part are predicted there.
        lines.append(_moved(line, start, stop if not is_last else np.inf))
        missing += [
            (a + start, min(b + start, stop), why)
            for a, b, why in gaps(clip, line.regions)
            if a + start < stop
        ]
        unseen += [(a + start, b + start) for a, b in unseen_stretches(clip)]
    if nearest is None:
        raise UnusableClip(reason or "nothing in it can be decoded")
    line = _joined(lines)
    used = tuple(name for name in Modality if any(name in some for some in line.used))
    return Recording(nearest[1], line, missing, unseen, used)


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


def _joined(lines: Sequence[Timeline]) -> Timeline:
    names = dict.fromkeys(name for line in lines for name in line.branches)
    return Timeline(
        np.concatenate([line.spans for line in lines]),
        tuple(used for line in lines for used in line.used),
        np.concatenate([line.probabilities for line in lines]),
        {
            name: np.concatenate(
                [
                    line.branches.get(name, np.full_like(line.probabilities, np.nan))
                    for line in lines
                ]
            )
            for name in names
        },
        tuple(part for line in lines for part in line.regions),
    )


def _of_branch(line: Timeline, name: str) -> np.ndarray:
    return line.branches.get(name, np.full_like(line.probabilities, np.nan))
