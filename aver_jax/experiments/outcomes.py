"""What the cells of a grid found: read back, pooled, and compared network with network.

Two things make such numbers vary: which actors are tested, and the seed of the training. Intervals
are given for each apart. Over actors: the bootstrap of `aver_jax.bootstrap`, on the test clips of
all folds and seeds together. Over seeds: Student's t of one value per seed.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aver_jax import bootstrap, metrics
from aver_jax.errors import UserError
from aver_jax.experiments.grid import Cell, Grid, read_result

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished cell.

    Attributes:
      cell: which one.
      results: of `evaluate.evaluate_run` on the test split; JSON types.
      seconds: that the cell took, if it was not stopped in between.
      rows, labels, predictions: int [n] of the test clips.
      actors, clip_ids: text [n].
      branches: name -> int [n], predictions of the network's own branches.
      features: float32 [n, D], or None.
    """

    cell: Cell
    results: dict[str, Any]
    seconds: float
    rows: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    actors: np.ndarray
    clip_ids: np.ndarray
    branches: Mapping[str, np.ndarray]
    features: np.ndarray | None

    @property
    def confusion(self) -> np.ndarray:
        """int64 [C, C], rows true."""
        return np.asarray(self.results["confusion"])

    @property
    def place(self) -> tuple[int, int]:
        """(fold, seed)."""
        return self.cell.fold, self.cell.seed


def read_outcomes(grid: Grid, cells: Iterable[Cell]) -> list[Outcome]:
    """Returns what `grid.run_cells` wrote for these cells.

    Raises:
      UserError: a file is missing or damaged.
    """
    outcomes = []
    for cell in cells:
        folder = grid.folder(cell)
        result = read_result(folder)
        try:
            with np.load(folder / "test.npz") as file:
                arrays = {name: file[name] for name in file.files}
        except (ValueError, EOFError, FileNotFoundError) as error:
            raise UserError(
                f"{folder}/test.npz cannot be read ({error}); remove result.json beside it and "
                "run the study again"
            ) from error
        branches = {
            name.removeprefix("logits_"): logits.argmax(-1)
            for name, logits in arrays.items()
            if name.startswith("logits_")
        }
        outcomes.append(
            Outcome(
                cell=cell,
                results=result["results"],
                seconds=result["seconds"],
                rows=arrays["row"],
                labels=arrays["label"],
                predictions=arrays["logits"].argmax(-1),
                actors=arrays["actor"],
                clip_ids=arrays["clip_id"],
                branches=branches,
                features=arrays.get("features"),
            )
        )
    return outcomes


def chosen(outcomes: Iterable[Outcome], **fields: Any) -> list[Outcome]:
    """The outcomes whose cell has these fields, such as network="n0", variant=""."""
    return [o for o in outcomes if all(getattr(o.cell, k) == v for k, v in fields.items())]


class Spread(NamedTuple):
    """Mean and standard deviation (n - 1) over cells; NaN where there are too few."""

    mean: float
    deviation: float
    cells: int


def spread(outcomes: Sequence[Outcome], score: str = "war") -> Spread:
    """Returns mean and deviation of a score of `results["metrics"]` over the cells."""
    values = np.array([o.results["metrics"][score]["value"] for o in outcomes], float)
    if not values.size:
        return Spread(float("nan"), float("nan"), 0)
    deviation = float(values.std(ddof=1)) if values.size > 1 else float("nan")
    return Spread(float(values.mean()), deviation, values.size)


class Estimate(NamedTuple):
    """A score of the clips of all cells together, with its 95% interval over actors."""

    value: float
    low: float
    high: float


def pooled(outcomes: Sequence[Outcome], statistic: Statistic = metrics.war) -> Estimate:
    """Returns a score of all the cells' test clips together, each clip once per seed."""
    labels, predictions, actors = (
        np.concatenate([getattr(o, name) for o in outcomes])
        for name in ("labels", "predictions", "actors")
    )
    size = len(outcomes[0].results["classes"])
    value = statistic(metrics.confusion_matrix(labels, predictions, size))
    ends = bootstrap.bootstrap_interval(statistic, labels, predictions, actors, size)
    return Estimate(float(value), *ends)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """By how much one network scores above another, on the same clips, folds and seeds.

    Attributes:
      value: the difference on all clips together.
      actors: its 95% interval over actors; NaN with fewer than 2.
      by_seed: seed -> the difference on that seed's clips.
      seeds: 95% interval of the mean over seeds; NaN with fewer than 2.
    """

    value: float
    actors: bootstrap.Interval
    by_seed: Mapping[int, float]
    seeds: bootstrap.Interval

    @property
    def better(self) -> bool | None:
        """Whether the one is better than the other; None where that is undecided.

        Decided only where both intervals leave out 0 on the same side: with other actors and with
        other seeds the answer would be expected to be the same. One seed decides nothing.
        """
        if self.actors.low > 0 and self.seeds.low > 0:
            return True
        if self.actors.high < 0 and self.seeds.high < 0:
            return False
        return None


def compare(
    ones: Sequence[Outcome], others: Sequence[Outcome], statistic: Statistic = metrics.war
) -> Comparison | None:
    """Returns how two networks compare on the (fold, seed) places that both have; None without."""
    of_place = {o.place: o for o in others}
    pairs = [(one, of_place[one.place]) for one in ones if one.place in of_place]
    if not pairs:
        return None
    for one, other in pairs:
        if not np.array_equal(one.rows, other.rows):
            raise UserError(
                f"{one.cell.name} and {other.cell.name} were tested on other clips; "
                "they are of different datasets or labels: choose another --workdir"
            )
    size = len(pairs[0][0].results["classes"])

    def difference(some):
        columns = [
            (one.labels, one.predictions, other.predictions, one.actors) for one, other in some
        ]
        parts = map(np.concatenate, zip(*columns, strict=True))
        return bootstrap.paired_difference(statistic, *parts, size)

    seeds = sorted({one.cell.seed for one, _ in pairs})
    by_seed = {s: difference([p for p in pairs if p[0].cell.seed == s]).value for s in seeds}
    whole = difference(pairs)
    return Comparison(
        value=whole.value,
        actors=bootstrap.Interval(whole.low, whole.high),
        by_seed=by_seed,
        seeds=t_interval(list(by_seed.values())),
    )


def t_interval(values: Sequence[float]) -> bootstrap.Interval:
    """95% interval of the mean of independent values (Student's t); NaN with fewer than 2."""
    from scipy.special import stdtrit  # half a second that only the page takes

    count = len(values)
    if count < 2:
        return bootstrap.Interval(float("nan"), float("nan"))
    half = stdtrit(count - 1, 0.5 + bootstrap.LEVEL / 2) * np.std(values, ddof=1) / np.sqrt(count)
    return bootstrap.Interval(float(np.mean(values) - half), float(np.mean(values) + half))


def best_single(outcomes: Sequence[Outcome]) -> str | None:
    """The branch network, audio or video, that scores higher on all clips together.

    The choice looks at the test clips, once for the whole table: it favours the single modality,
    so that "fusion is better" is the harder claim.
    """
    scores = {}
    for network in ("audio", "video"):
        own = chosen(outcomes, network=network)
        if own:
            scores[network] = pooled(own).value
    return max(scores, key=scores.get) if scores else None


def averaged_confusion(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Mean over the cells of the row-normalised confusion matrix: float64 [C, C].

    A class that a cell's test clips lack is left out of that cell's mean; a row that no cell has
    is NaN.
    """
    counts = np.stack([o.confusion for o in outcomes]).astype(float)
    totals = counts.sum(-1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    measured = (totals > 0).sum(0)
    return np.where(measured > 0, shares.sum(0) / np.maximum(measured, 1), np.nan)
