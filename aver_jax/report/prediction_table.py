"""Predictions as text: the table on screen, and CSV."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aver_jax.modality import Modality
from aver_jax.runtime.atomic_files import csv_text
from data_prep.wording import one_line


def table(predictions: Sequence[Any], classes: Sequence[str]) -> str:
    """Returns the class probabilities as text, a line per clip, the highest marked by a star.

    Args:
      predictions: `prediction.Prediction` each. Those of branches stand beside the fused one,
        and what it was made from.
      classes: C names.
    """
    best = [classes[int(p.probabilities.argmax())] for p in predictions]
    columns = [
        _column("clip", [name_of(p) for p in predictions]),
        _column("predicted", best),
        *(
            _column(name, [_share(p.probabilities, i) for p in predictions], right=True)
            for i, name in enumerate(classes)
        ),
    ]
    branches = [name for name in Modality if any(name in p.branches for p in predictions)]
    for name in branches:
        cells = [_branch(p.branches.get(name), classes) for p in predictions]
        columns.append(_column(f"{name} alone", cells))
    if any(p.missing or p.partly or len(p.used) > 1 for p in predictions):
        columns.append(_column("used", [used(p) for p in predictions]))
    if any(Modality.VIDEO in p.used for p in predictions):
        columns.append(_column("face found in", [_faces(p) for p in predictions]))
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def used(prediction: Any) -> str:
    """Returns what a prediction was made from: "both", or the one modality and why not the other.

    What was there only for a smaller part of the time is told with it.
    """
    notes = "; ".join(note for note in (prediction.missing, prediction.partly) if note)
    if len(prediction.used) > 1:
        words = "both"
    else:
        words = str(prediction.used[0])
        words += " only" if prediction.missing else ""
    return f"{words} ({notes})" if notes else words


def probabilities_csv(predictions: Sequence[Any], classes: Sequence[str]) -> str:
    """Returns the predictions as CSV: file, prediction, a probability per class.

    Where a model has several modalities, also what was used, and each branch's own prediction and
    probabilities (`video_prediction`, `video_ANG`, ...; empty where a clip lacks the modality).
    A temperature is fitted to fused logits: branches' columns, and predictions of one branch
    alone, are uncalibrated.
    """
    several = any(p.missing or p.partly or len(p.used) > 1 for p in predictions)
    branches = [name for name in Modality if any(name in p.branches for p in predictions)]
    head = ["file", "prediction", *classes, *(["used"] if several else [])]
    for name in branches:
        head += [f"{name}_prediction", *(f"{name}_{c}" for c in classes)]
    rows: list[Sequence[object]] = [head]
    for p in predictions:
        row = [str(p.path), *_cells(p.probabilities, classes), *([used(p)] if several else [])]
        for name in branches:
            row += _cells(p.branches.get(name), classes)
        rows.append(row)
    return csv_text(rows)


def _cells(probabilities: np.ndarray | None, classes: Sequence[str]) -> list[object]:
    if probabilities is None:
        return [None] * (1 + len(classes))
    return [classes[int(probabilities.argmax())], *map(float, probabilities)]


def _column(head: str, cells: Sequence[str], right: bool = False) -> list[str]:
    width = max(map(len, [head, *cells]))
    align = str.rjust if right else str.ljust
    return [align(cell, width) for cell in [head, *cells]]


def _share(probabilities: np.ndarray, place: int) -> str:
    return f"{probabilities[place]:.3f}{'*' if place == probabilities.argmax() else ' '}"


def _branch(probabilities: np.ndarray | None, classes: Sequence[str]) -> str:
    if probabilities is None:
        return "-"
    best = int(probabilities.argmax())
    return f"{classes[best]} {probabilities[best]:.3f}"


def _faces(prediction: Any) -> str:
    if Modality.VIDEO not in prediction.used:
        return "-"
    found, count = prediction.faces
    return f"{found} of {count} frames"


def name_of(prediction: Any) -> str:
    """Returns the file's name, with the number of the face where there are several."""
    name = one_line(prediction.path.name)
    return f"{name}, face {prediction.face}" if prediction.face else name
