"""Emotions over the time of a clip: a window slides over it, and the model answers each place."""

import dataclasses

import numpy as np

from aver_jax.errors import UserError
from aver_jax.files import csv_text
from aver_jax.input.clips import SAMPLE_RATE
from aver_jax.input.sampling import clip_seconds
from aver_jax.predictor import Clip, Predictor

# Windows at a time: one compiled call for clips of any length.
BATCH_SIZE = 8
# Windows per window length, unless a hop is given.
WINDOWS_PER_LENGTH = 8
MOST_WINDOWS = 10_000


@dataclasses.dataclass(frozen=True)
class Timeline:
    """What a model says about each of n windows of a clip.

    Attributes:
      spans: float64 [n, 2], start and stop in seconds of the clip, ascending.
      probabilities: float32 [n, C].
      branches: "video" or "audio" -> float32 [n, C], the opinions of that branch alone.
    """

    spans: np.ndarray
    probabilities: np.ndarray
    branches: dict[str, np.ndarray]


def timeline(
    predictor: Predictor, clip: Clip, window: float | None = None, hop: float | None = None
) -> Timeline:
    """Slides a window over a clip of any length.

    The windows lie where all that the answer is made from is there, so that none of them holds
    frames without their sound, or the reverse.

    Args:
      predictor: its temperature applies.
      clip: from `Predictor.prepare`.
      window: seconds; default: the shortest slice that the model was trained on
        (`config.data.min_slice` of the clip, or of `config.data.max_seconds` if that is less).
      hop: seconds from one window to the next; default: an eighth of the window.

    Raises:
      UserError: so small a hop that there would be more than 10,000 windows.
    """
    data = predictor.run.config.data
    first, last = extent(clip)
    if window is None:
        window = data.min_slice * min(data.max_seconds, last - first)
    spans = windows(first, last, window, hop or window / WINDOWS_PER_LENGTH)
    longest = float((spans[:, 1] - spans[:, 0]).max())
    answers = predictor.answers(clip, spans, BATCH_SIZE, max(longest, data.max_seconds))
    return Timeline(spans, predictor.tempered(answers.probabilities, clip.used), answers.branches)


def extent(clip: Clip) -> tuple[float, float]:
    """(start, stop), in seconds of the clip, between which it has all that is used of it."""
    first, last = 0.0, np.inf
    timestamps = clip.record["timestamps"]
    if "frames" in clip.used:
        first = float(timestamps[0])
        last = clip_seconds(timestamps, 0, SAMPLE_RATE)
    if "audio" in clip.used:
        last = min(last, len(clip.record["pcm"]) / np.dtype(np.int16).itemsize / SAMPLE_RATE)
    return (first, last) if last > first else (0.0, last)


def windows(first: float, last: float, window: float, hop: float) -> np.ndarray:
    """Windows from `first` to `last`, float64 [n, 2] seconds, n >= 1.

    Each begins one hop after the other; one more ends exactly at `last` where they do not. A window
    longer than the whole is the whole.

    Raises:
      UserError: they would be more than 10,000.
    """
    spare = last - first - window
    if spare <= 0:
        return np.array([[first, last]])
    count = spare / hop
    if count > MOST_WINDOWS:
        raise UserError(
            f"a hop of {hop:g} s gives {count:.0f} windows in {last - first:.1f} s, at most "
            f"{MOST_WINDOWS} are drawn; take a longer --hop"
        )
    # A rest of less than a thousandth of a hop is rounding.
    starts = first + hop * np.arange(int(np.floor(count + 1e-3)) + 1)
    starts = np.minimum(starts, first + spare)
    if first + spare - starts[-1] > 1e-3 * hop:
        starts = np.append(starts, first + spare)
    return np.stack([starts, starts + window], axis=1)


def timeline_csv(line: Timeline, classes: list[str] | tuple[str, ...]) -> str:
    """CSV, a line per window: start, stop, prediction, a probability per class and branch."""
    head = ["start", "stop", "prediction", *classes]
    head += [f"{name}_{c}" for name in line.branches for c in classes]
    rows: list[list[object]] = [head]
    for place, (start, stop) in enumerate(line.spans):
        values = line.probabilities[place]
        opinions = [float(x) for branch in line.branches.values() for x in branch[place]]
        # To the sample; six significant digits would not tell windows of a long clip apart.
        cells = [f"{start:.4f}", f"{stop:.4f}", classes[int(values.argmax())]]
        rows.append([*cells, *map(float, values), *opinions])
    return csv_text(rows)
