"""Scores of controls beside the score of the clips as they are: numbers, table and CSV."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.evaluation import bootstrap, metrics
from aver_jax.evaluation.controls import SEED
from aver_jax.evaluation.scores import estimate, shown, span

AS_IS = "as is"
LABELS_PERMUTED = "labels permuted"
PERMUTATIONS = 2000
_SCORES = {"war": metrics.war, "uar": metrics.uar}


def score_controls(
    as_is: np.ndarray,
    found: Mapping[str, tuple[str, np.ndarray]],
    labels: np.ndarray,
    actors: np.ndarray,
    num_classes: int,
    samples: int = bootstrap.SAMPLES,
) -> dict[str, Any]:
    """Returns the scores of every control, and how far they are from those of the clips as is.

    Args:
      as_is: int [n], predictions of the clips as they are.
      found: control -> (what it does, predictions int [n] of the same clips).
      labels: int [n].
      actors: [n] actor of each clip.
      num_classes: C.
      samples: bootstrap replicates.

    Returns:
      JSON types only. `rows`, the clips as is first and permuted labels last: each has `control`,
      `detail`, `war` and `uar` (value, low, high) and `minus_as_is`, the same of the differences
      (None of the first). Intervals resample actors, those of differences both scores together. In
      the last row they are the mean and the range of 95% of the permutations.
      `chance`: the UAR of guessing; `includes_chance`: whether the last row's range has it, as it
      must where actors have the same labels; `note` says so in a sentence.
    """
    labels, actors = np.asarray(labels), np.asarray(actors).astype(str)
    rows: list[dict[str, Any]] = []
    for name, (detail, predictions) in {AS_IS: ("", as_is), **found}.items():
        row: dict[str, Any] = {"control": name, "detail": detail}
        confusion = metrics.confusion_matrix(labels, predictions, num_classes)
        for key, score in _SCORES.items():
            ends = bootstrap.bootstrap_interval(
                score, labels, predictions, actors, num_classes, samples
            )
            row[key] = estimate(score(confusion), ends)
        row["minus_as_is"] = None
        if name != AS_IS:
            differences = {
                key: bootstrap.paired_difference(
                    score, labels, predictions, as_is, actors, num_classes, samples
                )
                for key, score in _SCORES.items()
            }
            row["minus_as_is"] = {k: estimate(d.value, d[1:]) for k, d in differences.items()}
        rows.append(row)
    rows.append(_permuted(rows[0], as_is, labels, actors, num_classes))
    chance, uar = 1 / len(np.unique(labels)), rows[-1]["uar"]
    # A model that always predicts one class is at chance in every permutation, but for rounding.
    includes_chance = uar["low"] - 1e-9 <= chance <= uar["high"] + 1e-9
    text = f"chance, a UAR of {100 * chance:.1f}%"
    return {
        "rows": rows,
        "chance": chance,
        "includes_chance": includes_chance,
        "note": f"The range with permuted labels includes {text}."
        if includes_chance
        else f"The range with permuted labels leaves out {text}: actors differ in their labels.",
        "permutations": PERMUTATIONS,
        "seed": SEED,
    }


def permuted_confusions(
    predictions,
    labels,
    actors,
    num_classes: int,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> np.ndarray:
    """Returns confusion counts of unchanged predictions against permuted labels.

    Labels are permuted within each actor. How many clips of which label an actor has was decided
    before any clip was filmed, and predictions of one actor's clips resemble each other: exchanging
    labels between actors would break both ties. What is left of the score is what a model reaches
    that knows nothing of a clip but who acts in it. An actor with clips of a single label has
    nothing to exchange; the clips of all such actors are permuted together. Unknown actors count as
    one, whose labels are permuted over all clips.

    Args:
      predictions: int [n].
      labels: int [n].
      actors: [n] actor of each clip, "" where unknown.
      num_classes: C.
      permutations: P.
      seed: fixes them.

    Returns:
      int64 [P, C, C].
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    _, groups = np.unique(np.asarray(actors), return_inverse=True)
    labels_of = [len(np.unique(labels[groups == group])) for group in range(groups.max() + 1)]
    groups = np.where(np.array(labels_of)[groups] > 1, groups, -1)
    rng, within = np.random.default_rng(seed), np.argsort(groups, kind="stable")
    confusions = np.empty((permutations, num_classes, num_classes), np.int64)
    for number in range(permutations):
        permuted = np.empty_like(labels)
        permuted[within] = labels[np.lexsort((rng.random(len(labels)), groups))]
        confusions[number] = metrics.confusion_matrix(permuted, predictions, num_classes)
    return confusions


def controls_table(results: Mapping[str, Any]) -> str:
    """Returns the scores of controls as text.

    Args:
      results: of `job.evaluate_run` with controls.
    """
    controls = results["controls"]
    width = 2 + max(len(row["control"]) for row in controls["rows"])
    head = f"{'WAR':>7}   {'95% interval':<17}{'UAR':>7}   WAR difference, points"
    lines = [f"{'control':<{width}}{head}"]
    for row in controls["rows"]:
        scores = f"{shown('war', row['war']['value']):>7}   {span('war', row['war']):<17}"
        lines.append(
            f"{row['control']:<{width}}{scores}{shown('uar', row['uar']['value']):>7}   "
            f"{_points(row['minus_as_is'])}".rstrip()
        )
    lines += [f"  {row['control']}: {row['detail']}" for row in controls["rows"] if row["detail"]]
    lines.append(f"  {controls['note']}")
    return "\n".join(lines)


def controls_rows(controls: Mapping[str, Any]) -> list[Sequence[object]]:
    """Returns controls.csv: a head, then one line per control; shares, not percent."""
    scores = ("war", "uar")
    ends = ("value", "low", "high")
    columns = [
        f"{s}{of}{e}" for of in ("", "_minus_as_is") for s in scores for e in ("", "_low", "_high")
    ]
    table: list[Sequence[object]] = [["control", *columns, "detail"]]
    for row in controls["rows"]:
        values = [row[s][e] for s in scores for e in ends]
        above = row["minus_as_is"]
        differences = [above[s][e] if above else None for s in scores for e in ends]
        table.append([row["control"], *values, *differences, row["detail"]])
    return table


def _permuted(first, predictions, labels, actors, num_classes) -> dict[str, Any]:
    """Returns the row of permuted labels: the mean and the 95% range of the permutations."""
    confusions = permuted_confusions(predictions, labels, actors, num_classes)
    tail = 100 * (1 - bootstrap.LEVEL) / 2
    row: dict[str, Any] = {
        "control": LABELS_PERMUTED,
        "detail": f"within each actor, {PERMUTATIONS} times; mean and range of 95%",
        "minus_as_is": {},
    }
    for key, score in _SCORES.items():
        values = score(confusions)
        low, high = np.percentile(values, [tail, 100 - tail])
        row[key] = estimate(values.mean(), (low, high))
        known = first[key]["value"]
        row["minus_as_is"][key] = estimate(values.mean() - known, (low - known, high - known))
    return row


def _points(difference) -> str:
    if difference is None:
        return ""
    war = difference["war"]
    text = f"{100 * war['value']:+6.1f}"
    if war["low"] is None:
        return text
    return f"{text}   [{100 * war['low']:+.1f}, {100 * war['high']:+.1f}]"
