"""Emotions over the time of a clip: a window slides over it, with a prediction at each place."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from aver_jax.errors import UserError
from aver_jax.input import time_spans
from aver_jax.modality import Modality
from aver_jax.prediction.prediction import Clip
from aver_jax.prediction.predictor import Predictor
from aver_jax.runtime.atomic_files import csv_text

# Windows at a time: one compiled call for clips of any length.
BATCH_SIZE = 8
# Windows per window length, unless a hop is given.
WINDOWS_PER_LENGTH = 8
MOST_WINDOWS = 10_000
# Seconds without a window that are worth a word.
LEAST_GAP = 0.25


@dataclasses.dataclass(frozen=True)
class Region:
    """A stretch of a clip (seconds), and the modalities that its windows are predicted from."""

    start: float
    stop: float
    used: tuple[Modality, ...]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Predictions for n windows of a clip.

    Attributes:
      spans: float64 [n, 2], start and stop in seconds of the clip, ascending.
      used: n times the modalities that a window is predicted from, as `Modality`.
      probabilities: float32 [n, C].
      branches: "video" or "audio" -> float32 [n, C], of that branch alone; NaN in windows that
        it has no part in.
      regions: the stretches that the windows lie in, ascending.
    """

    spans: np.ndarray
    used: tuple[tuple[Modality, ...], ...]
    probabilities: np.ndarray
    branches: dict[str, np.ndarray]
    regions: tuple[Region, ...]


def timeline(
    predictor: Predictor, clip: Clip, window: float | None = None, hop: float | None = None
) -> Timeline:
    """Slides a window over a clip of any length.

    No window holds frames without their sound, or the reverse: where a clip has only one of them,
    the windows are predicted by the branch of that one, if the network has such branches.

    Args:
      predictor: its temperature applies, but not to predictions of one branch alone.
      clip: from `Predictor.prepare`.
      window: seconds; default: the shortest slice that the model was trained on
        (`config.data.min_slice` of the clip, or of `config.data.max_seconds` if that is less).
      hop: seconds from one window to the next; default: an eighth of the window.

    Raises:
      UserError: so small a hop that there would be more than 10,000 windows.
    """
    data = predictor.run.config.data
    if window is None:
        extents = [time_spans.extents(clip.known)[name] for name in clip.used]
        length = max(stop for _, stop in extents) - min(start for start, _ in extents)
        window = data.min_slice * min(data.max_seconds, length)
    parts = regions(clip, window, predictor.takes_one_modality)
    hop = hop or window / WINDOWS_PER_LENGTH
    spans = [windows(part.start, part.stop, window, hop) for part in parts]
    longest = max(float((s[:, 1] - s[:, 0]).max()) for s in spans)
    lines = []
    for part, some in zip(parts, spans, strict=True):
        clip_part = dataclasses.replace(clip, used=part.used)
        most = max(longest, data.max_seconds)
        found = predictor.predict_spans(clip_part, some, BATCH_SIZE, most)
        probabilities = predictor.tempered(found.probabilities, part.used)
        used = (part.used,) * len(some)
        lines.append(Timeline(some, used, probabilities, found.branches, (part,)))
    return joined(lines)


def joined(lines: Sequence[Timeline]) -> Timeline:
    """Returns timelines one after the other as one."""
    names = dict.fromkeys(name for line in lines for name in line.branches)
    return Timeline(
        np.concatenate([line.spans for line in lines]),
        tuple(used for line in lines for used in line.used),
        np.concatenate([line.probabilities for line in lines]),
        {name: np.concatenate([_of_branch(line, name) for line in lines]) for name in names},
        tuple(part for line in lines for part in line.regions),
    )


def _of_branch(line: Timeline, name: str) -> np.ndarray:
    return line.branches.get(name, np.full_like(line.probabilities, np.nan))


def regions(clip: Clip, window: float, takes_one_modality: bool) -> tuple[Region, ...]:
    """Returns the stretches of a clip that windows slide over, ascending.

    First of all where all that is used is there at once. Before and after it, stretches of at least
    half a window of one modality alone, where the network takes one; shorter ones, as nearly
    every clip has, would be no window to speak of.
    """
    record = clip.known
    both, found = time_spans.shared_stretches(record, clip.used), time_spans.extents(record)
    if not both and not takes_one_modality:
        return (Region(0.0, time_spans.seconds_of(record), clip.used),)
    parts = [Region(*span, clip.used) for span in both if span[1] - span[0] >= window / 2]
    for name in clip.used if takes_one_modality and len(clip.used) > 1 else ():
        edges = [(part.start, part.stop) for part in parts]
        for start, stop in time_spans.stretches(record, name):
            parts += [
                Region(a, b, (name,))
                for a, b in _outside(start, stop, edges)
                if b - a >= window / 2
            ]
    if not parts and both:
        # All are shorter than half a window.
        parts = [Region(*max(both, key=lambda span: span[1] - span[0]), clip.used)]
    if not parts:
        # Both are shorter than half a window, one after the other.
        name = max(clip.used, key=lambda name: found[name][1] - found[name][0])
        parts = [Region(*found[name], (name,))]
    return tuple(sorted(parts, key=lambda part: part.start))


def _outside(start: float, stop: float, spans: Sequence[tuple[float, float]]):
    """Yields the (start, stop) parts of an interval that no span covers."""
    for begin, end in sorted(spans):
        if start < begin < stop:
            yield start, begin
        if begin < stop:
            start = max(start, end)
    if start < stop:
        yield start, stop


def gaps(clip: Clip, parts: Sequence[Region]) -> list[tuple[float, float, str]]:
    """Returns (start, stop, why) of stretches that no region covers, from a quarter second."""
    edges = [(part.start, part.stop) for part in parts]
    whole = time_spans.seconds_of(clip.record)
    starts, stops = [0.0, *(stop for _, stop in edges)], [*(start for start, _ in edges), whole]
    left = []
    for span in zip(starts, stops, strict=True):
        if span[1] - span[0] < LEAST_GAP:
            continue
        lacking = [
            name
            for name in clip.used
            if time_spans.seconds_within(clip.known, name, span) < (span[1] - span[0]) / 2
        ]
        left.append((*span, f"no {' and no '.join(lacking)}" if lacking else "too short"))
    return left


def windows(first: float, last: float, window: float, hop: float) -> np.ndarray:
    """Returns windows from `first` to `last`, float64 [n, 2] seconds, n >= 1.

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


def averaged(line: Timeline, most: int) -> tuple[Timeline, int]:
    """Returns a timeline of about `most` points at most, and of how many windows each is the mean.

    Windows that are predicted from different modalities are not averaged.
    """
    each = -(-len(line.spans) // most)
    if each == 1:
        return line, 1
    groups, first = [], 0
    for place in range(1, len(line.spans) + 1):
        ends = place == len(line.spans) or line.used[place] != line.used[first]
        if ends or place - first == each:
            groups.append(slice(first, place))
            first = place
    means = {
        name: np.stack([values[group].mean(axis=0) for group in groups])
        for name, values in {**line.branches, "": line.probabilities, " ": line.spans}.items()
    }
    spans, probabilities = means.pop(" "), means.pop("")
    used = tuple(line.used[group.start] for group in groups)
    return Timeline(spans, used, probabilities, means, line.regions), each


def timeline_csv(line: Timeline, classes: Sequence[str]) -> str:
    """Returns CSV, a line per window: start, stop, prediction, a probability per class and branch.

    Where windows are predicted from different modalities, also from which: "both" or one of them.
    Branches' probabilities are uncalibrated, and empty where a branch has no part.
    """
    several = len(set(line.used)) > 1
    head = ["start", "stop", "prediction", *classes]
    head += ["used"] if several else []
    head += [f"{name}_{c}" for name in line.branches for c in classes]
    rows: list[list[object]] = [head]
    for place, (start, stop) in enumerate(line.spans):
        values = line.probabilities[place]
        of_branches = [
            None if np.isnan(x) else float(x)
            for branch in line.branches.values()
            for x in branch[place]
        ]
        # To the sample; six significant digits would not tell windows of a long clip apart.
        cells = [f"{start:.4f}", f"{stop:.4f}", classes[int(values.argmax())]]
        words = [words_of(line.used[place])] if several else []
        rows.append([*cells, *map(float, values), *words, *of_branches])
    return csv_text(rows)


def words_of(used: tuple[Modality, ...]) -> str:
    """Returns what the modalities of a window are called: "both", "video" or "audio"."""
    return "both" if len(used) > 1 else used[0]
