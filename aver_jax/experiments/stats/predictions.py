"""The predictions of a grid's cells: read back, pooled, and compared network with network.

Two things make such numbers vary: which actors are tested, and the seed of the training. One
interval over both, that of `two_way_bootstrap`, decides what is said of a difference. Scores of one
network have the interval over actors of `aver_jax.evaluation.bootstrap`.
"""

import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aver_jax.errors import UserError
from aver_jax.evaluation import bootstrap, metrics
from aver_jax.experiments.grid.run_result import failure_of, read_result
from aver_jax.experiments.grid.trainings import Cell, Grid
from aver_jax.experiments.stats.two_way_bootstrap import crossed_difference

Statistic = Callable[[np.ndarray], np.ndarray]

#: With fewer actors a bootstrap's interval is too narrow to decide anything.
LEAST_ACTORS = 10
#: By how much a network may score lower and still be called no worse.
MARGIN = 0.02


@dataclasses.dataclass(frozen=True)
class ClipPredictions:
    """The predictions of a cell's network for some clips.

    Attributes:
      cell: of the grid.
      classes: names of the C classes.
      rows, labels, predictions: int [n] of the clips.
      actors, clip_ids: text [n].
    """

    cell: Cell
    classes: Sequence[str]
    rows: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    actors: np.ndarray
    clip_ids: np.ndarray

    @property
    def place(self) -> tuple[str, int, int]:
        """(variant, fold, seed): where two networks can be compared."""
        return self.cell.variant, self.cell.fold, self.cell.seed

    def among(self, keep: np.ndarray) -> "ClipPredictions":
        """Returns the predictions for the clips where `keep`, bool [n], is true."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(ClipPredictions)}
        arrays = ("rows", "labels", "predictions", "actors", "clip_ids")
        return ClipPredictions(**{k: v[keep] if k in arrays else v for k, v in fields.items()})


@dataclasses.dataclass(frozen=True)
class CellResult(ClipPredictions):
    """A finished cell: its predictions for all its test clips, and what else it wrote.

    Attributes:
      evaluation: results of `evaluate_run` on the test split; JSON types.
      seconds: that the cell took, if it was not stopped in between.
      config: the experiment it trained, as JSON types.
      branches: name -> int [n], predictions of the network's own branches.
      features: float32 [n, D], or None.
      made: "date", "device" and "versions" of the training; empty if that was not stored.
    """

    evaluation: dict[str, Any]
    seconds: float
    config: Mapping[str, Any]
    branches: Mapping[str, np.ndarray]
    features: np.ndarray | None
    made: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def confusion(self) -> np.ndarray:
        """int64 [C, C], rows true."""
        return np.asarray(self.evaluation["confusion"])


class Failure(NamedTuple):
    """A cell that could not be trained, and why, in one line."""

    cell: Cell
    reason: str


def read_cell_results(grid: Grid, cells: Iterable[Cell]) -> tuple[list[CellResult], list[Failure]]:
    """Returns what `trainings.run_cells` wrote for these cells: results, and failed cells.

    Raises:
      UserError: a file is missing or damaged; no cell is left.
    """
    results, failures = [], []
    for cell in cells:
        folder = grid.folder(cell)
        result = read_result(folder)
        if (reason := failure_of(result)) is not None:
            failures.append(Failure(cell, reason))
            continue
        try:
            # Opened here: numpy leaves a file that is no archive open.
            with (folder / "test.npz").open("rb") as raw, np.load(raw) as file:
                arrays = {name: file[name] for name in file.files}
            results.append(_cell_result(cell, result, arrays))
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{folder}/test.npz cannot be read ({type(error).__name__}: {error}); remove "
                "result.json beside it and run the study again"
            ) from error
    if not results:
        cell, reason = failures[0]
        raise UserError(
            f"all {len(failures)} trainings failed; {cell.name}: {reason} "
            "(choose another --workdir to begin anew)"
        )
    return results, failures


def _cell_result(
    cell: Cell, result: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> CellResult:
    branches = {
        name.removeprefix("logits_"): logits.argmax(-1)
        for name, logits in arrays.items()
        if name.startswith("logits_")
    }
    return CellResult(
        cell=cell,
        classes=tuple(result["results"]["classes"]),
        rows=arrays["row"],
        labels=arrays["label"],
        predictions=arrays["logits"].argmax(-1),
        actors=arrays["actor"],
        clip_ids=arrays["clip_id"],
        evaluation=result["results"],
        seconds=result["seconds"],
        config=result["config"],
        branches=branches,
        features=arrays.get("features"),
        made=result.get("made", {}),
    )


def chosen(results: Iterable[ClipPredictions], **fields: Any) -> list:
    """Returns the results whose cell has these fields, such as network="n0", variant=""."""
    return [o for o in results if all(getattr(o.cell, k) == v for k, v in fields.items())]


class Spread(NamedTuple):
    """Mean and standard deviation (n - 1) over cells; NaN where there are too few."""

    mean: float
    std: float
    cells: int


def spread(results: Sequence[CellResult], score: str = "war") -> Spread:
    """Returns mean and standard deviation of a score of `evaluation["metrics"]` over the cells."""
    values = np.array([o.evaluation["metrics"][score]["value"] for o in results], float)
    if not values.size:
        return Spread(float("nan"), float("nan"), 0)
    std = float(values.std(ddof=1)) if values.size > 1 else float("nan")
    return Spread(float(values.mean()), std, values.size)


class Estimate(NamedTuple):
    """A score of the clips of all cells together, with its 95% interval over actors."""

    value: float
    low: float
    high: float


def pooled(found: Sequence[ClipPredictions], statistic: Statistic = metrics.war) -> Estimate:
    """Returns a score of all the cells' clips together, each clip once per seed."""
    labels, predictions, actors = (
        np.concatenate([getattr(o, name) for o in found])
        for name in ("labels", "predictions", "actors")
    )
    size = len(found[0].classes)
    value = statistic(metrics.confusion_matrix(labels, predictions, size))
    ends = bootstrap.bootstrap_interval(statistic, labels, predictions, actors, size)
    return Estimate(float(value), *ends)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """By how much one network scores above another, on the same clips, folds and seeds.

    Attributes:
      value: the difference on all clips together.
      interval: its 95% interval over actors and seeds; over actors alone with one seed, NaN with
        fewer than 2 actors. It decides.
      actors: its 95% interval over actors alone.
      by_seed: seed -> the difference on that seed's clips.
      tested: number of actors.
    """

    value: float
    interval: bootstrap.Interval
    actors: bootstrap.Interval
    by_seed: Mapping[int, float]
    tested: int

    @property
    def higher(self) -> bool | None:
        """Whether the one scores higher; False where it scores lower, None where undecided.

        Decided where the interval leaves out 0, of `LEAST_ACTORS` or more.
        """
        return self._beyond(0.0)

    @property
    def no_worse(self) -> bool | None:
        """Whether the one scores lower by less than `MARGIN` (non-inferiority); None: undecided."""
        return self._beyond(-MARGIN)

    def _beyond(self, bound: float) -> bool | None:
        if self.tested < LEAST_ACTORS:
            return None
        if self.interval.low > bound:
            return True
        return False if self.interval.high < bound else None


def compare(
    ones: Sequence[ClipPredictions],
    others: Sequence[ClipPredictions],
    statistic: Statistic = metrics.war,
) -> Comparison | None:
    """Returns how two networks compare on the places that both have; None without clips there."""
    of_place = {o.place: o for o in others}
    pairs = [(one, of_place[one.place]) for one in ones if one.place in of_place]
    for one, other in pairs:
        if not np.array_equal(one.rows, other.rows):
            raise UserError(
                f"{one.cell.name} and {other.cell.name} were tested on other clips; "
                "they are of different datasets or labels: choose another --workdir"
            )
    if not sum(len(one.rows) for one, _ in pairs):
        return None
    size = len(pairs[0][0].classes)
    columns = [
        (a.labels, a.predictions, b.predictions, a.actors, np.full(len(a.rows), a.cell.seed))
        for a, b in pairs
    ]
    labels, one, other, actors, seeds = map(np.concatenate, zip(*columns, strict=True))
    by_seed = {}
    for seed in np.unique(seeds).tolist():
        mine = seeds == seed
        scores = [
            statistic(metrics.confusion_matrix(labels[mine], predictions[mine], size))
            for predictions in (one, other)
        ]
        by_seed[seed] = float(scores[0] - scores[1])
    whole = crossed_difference(statistic, labels, one, other, actors, seeds, size)
    alone = bootstrap.paired_difference(statistic, labels, one, other, actors, size)
    return Comparison(
        value=whole.value,
        interval=bootstrap.Interval(whole.low, whole.high),
        actors=bootstrap.Interval(alone.low, alone.high),
        by_seed=by_seed,
        tested=len(np.unique(actors)),
    )


def best_single(
    results: Sequence[ClipPredictions], statistic: Statistic = metrics.war
) -> str | None:
    """Returns the branch network, audio or video, that scores higher on all clips together.

    The choice looks at the test clips, once for the whole table: it favours the single modality,
    so that "fusion is better" is the harder claim.
    """
    scores = {}
    for network in ("audio", "video"):
        own = chosen(results, network=network)
        if own:
            scores[network] = pooled(own, statistic).value
    return max(scores, key=scores.get) if scores else None


def averaged_confusion(results: Sequence[CellResult]) -> np.ndarray:
    """Returns the mean over the cells of the row-normalised confusion matrix: float64 [C, C].

    A class that a cell's test clips lack is left out of that cell's mean; a row that no cell has
    is NaN.
    """
    counts = np.stack([o.confusion for o in results]).astype(float)
    totals = counts.sum(-1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    measured = (totals > 0).sum(0)
    return np.where(measured > 0, shares.sum(0) / np.maximum(measured, 1), np.nan)
