"""The tables of the networks' comparison, in the layout of the thesis' Tables 5.1 to 5.4."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.evaluation import metrics
from aver_jax.experiments.grid.trainings import NETWORKS
from aver_jax.experiments.pages import page, published
from aver_jax.experiments.pages.page import Table
from aver_jax.experiments.stats.predictions import (
    MARGIN,
    CellResult,
    ClipPredictions,
    Comparison,
    Statistic,
    best_single,
    chosen,
    compare,
    pooled,
    spread,
)
from aver_jax.models.resnet import sequence

#: Which network is compared with which; "best" is the better single modality.
DIFFERENCES = (
    ("n2", "n1"),
    ("n1", "n0"),
    ("n2", "n0"),
    ("n2", "late"),
    ("n0", "late"),
    ("n0", "best"),
    ("n2", "best"),
)
#: The one comparison that a page is about; the others are read beside it.
PRIMARY = ("n2", "n0")
_NAMES = {"lstm": "LSTM", "bilstm": "bidirectional LSTM", "transformer": "Transformer"}
#: Aggregator -> its name for people.
AGGREGATORS = {kind: _NAMES.get(kind, kind) for kind in sequence.AGGREGATORS}
#: The variant of training on whole clips, and how the thesis marks it (Table 5.1).
WHOLE_CLIPS = "nt"
#: Of a table of the thesis: it prints the folds alone.
COMPUTED = "mean ± SD (computed here)"
_THESIS_NAMES = {"audio": "AM", "video": "VM", "n0": "JM (N0)"}


def fold_name(protocol: str, fold: int) -> str:
    """Returns a fold's column head: "A1,2" of ravdess_pairs, "fold 1" of other protocols."""
    return published.RAVDESS_PAIRS[fold - 1] if protocol == "ravdess_pairs" else f"fold {fold}"


def by_fold(rows: Mapping[str, Sequence[CellResult]], protocol: str, score: str = "war") -> Table:
    """Returns networks in rows, folds in columns, then mean and std over folds and seeds.

    Args:
      rows: the row's name -> its results; a row without results is left out.
      protocol: names the folds.
      score: a key of the evaluation's `metrics`.
    """
    folds = sorted({o.cell.fold for some in rows.values() for o in some})
    head = ["network", *(fold_name(protocol, fold) for fold in folds), "mean ± SD"]
    lines = []
    for name, some in rows.items():
        if some:
            means = [spread(chosen(some, fold=fold), score).mean for fold in folds]
            whole = page.mean_and_std(*spread(some, score)[:2])
            lines.append([name, *map(page.percent, means), whole])
    return Table(head, lines)


def modalities(results: Sequence[CellResult], protocol: str) -> Table:
    """Returns Table 5.1: modalities and both, without (NT) and with (T) temporal augmentation."""
    rows = {}
    for network, name in _THESIS_NAMES.items():
        own = chosen(results, network=network)
        rows[f"{name} (NT)"] = chosen(own, variant=WHOLE_CLIPS)
        rows[f"{name} (T)"] = chosen(own, variant="")
    return by_fold(rows, protocol)


def networks(results: Sequence[CellResult], protocol: str, score: str = "war") -> Table:
    """Returns Tables 5.2 and 5.3, and the single modalities above them."""
    rows = {name: chosen(results, network=network) for network, name in NETWORKS.items()}
    return by_fold(rows, protocol, score)


def summary(results: Sequence[CellResult]) -> Table:
    """Returns Table 5.4: networks by aggregators, WAR and UAR with intervals over actors."""
    head = ["network, aggregator", "WAR", "UAR", "WAR, pooled", "95%", "UAR, pooled", "95%"]
    lines = []
    for network, name in NETWORKS.items():
        for aggregator, known in AGGREGATORS.items():
            own = chosen(results, network=network, aggregator=aggregator, variant="")
            if not own:
                continue
            scores = [page.mean_and_std(*spread(own, s)[:2]) for s in ("war", "uar")]
            cells = []
            for statistic in (metrics.war, metrics.uar):
                found = pooled(own, statistic)
                cells += [page.percent(found.value), page.span(found.low, found.high)]
            lines.append([f"{name}, {known}", *scores, *cells])
    return Table(head, lines)


def comparisons(
    results: Sequence[ClipPredictions], statistic: Statistic = metrics.war
) -> dict[tuple[str, str], Comparison]:
    """Returns (one, other) of DIFFERENCES -> how they compare, where both were run.

    Args:
      results: of one aggregator and variant.
      statistic: the score.
    """
    single = best_single([o for o in results if len(o.rows)], statistic)
    found = {}
    for one, other in DIFFERENCES:
        network = single if other == "best" else other
        if network is not None:
            ones, others = chosen(results, network=one), chosen(results, network=network)
            comparison = compare(ones, others, statistic)
            if comparison is not None:
                found[one, other] = comparison
    return found


_WITHIN = f"{100 * MARGIN:g} points"
#: Columns of a table of differences.
DIFFERENCE_HEAD = [
    "difference",
    "points",
    "95%",
    "95%, actors alone",
    "each seed",
    "scores higher?",
    f"no worse by {_WITHIN}?",
]
_WORDS = {True: "yes", False: "no", None: "undecided"}


def differences(results: Sequence[ClipPredictions]) -> Table:
    """Returns paired differences of WAR in points, with intervals and what they decide."""
    single = best_single(results)
    rows = [
        difference_row(
            short(one), f"best single ({single})" if other == "best" else short(other), found
        )
        for (one, other), found in comparisons(results).items()
    ]
    return Table(DIFFERENCE_HEAD, rows)


def aggregator_differences(results: Sequence[ClipPredictions]) -> Table:
    """Returns by how much every other aggregator is better than the first, for each network."""
    first, *others = list(dict.fromkeys(o.cell.aggregator for o in results))
    lines = []
    for network, name in NETWORKS.items():
        for other in others:
            own = chosen(results, network=network, variant="")
            found = compare(chosen(own, aggregator=other), chosen(own, aggregator=first))
            if found is not None:
                lines.append(
                    difference_row(f"{name}: {AGGREGATORS[other]}", AGGREGATORS[first], found)
                )
    return Table(DIFFERENCE_HEAD, lines)


def difference_row(one: str, other: str, found: Comparison) -> list[str]:
    """Returns a row under `DIFFERENCE_HEAD`: the names of both, and how they compare."""
    return [
        f"{one} - {other}",
        page.points(found.value),
        page.points_span(*found.interval),
        page.points_span(*found.actors),
        ", ".join(map(page.points, found.by_seed.values())),
        _WORDS[found.higher],
        _WORDS[found.no_worse],
    ]


def primary(results: Sequence[ClipPredictions]) -> dict[str, Any]:
    """Returns the names of the networks that a page is about, and how they compare.

    Args:
      results: of one aggregator; those of several variants are compared each with its like.
    """
    one, other = PRIMARY
    found = compare(chosen(results, network=one), chosen(results, network=other))
    return {"names": [short(one), short(other)], "found": found}


def branches(results: Sequence[CellResult]) -> Table:
    """Returns the WAR of the branches inside a fusion network, beside their own trainings."""
    head = ["branch of", "video", "audio"]
    lines = []
    for network, name in NETWORKS.items():
        own = chosen(results, network=network)
        if not own:
            continue
        if network in ("video", "audio"):
            war = page.percent(pooled(own).value)
            cells = [war if branch == network else "-" for branch in ("video", "audio")]
            lines.append([f"{name}, trained alone", *cells])
        elif own[0].branches:
            shares = [
                np.concatenate([o.branches[branch] == o.labels for o in own]).mean()
                for branch in ("video", "audio")
            ]
            lines.append([name, *map(page.percent, shares)])
    return Table(head, lines)


def thesis_folds(dataset: str) -> Table | None:
    """Returns Table 5.2 or 5.3 as printed, with the means of its rows; None for another dataset."""
    found = published.table_of(dataset)
    if found is None:
        return None
    names, rows = found
    head = ["thesis", *names, COMPUTED]
    rows = [
        [
            NETWORKS[network],
            *map(page.percent, values),
            page.mean_and_std(float(np.mean(values)), float(np.std(values, ddof=1))),
        ]
        for network, values in rows.items()
    ]
    return Table(head, rows)


def thesis_augmentation() -> Table:
    """Returns Table 5.1 as printed, with the means of its rows."""
    head = ["thesis, RAVDESS", *published.RAVDESS_PAIRS, COMPUTED]
    rows = [
        [
            f"{_THESIS_NAMES[network]} ({'T' if augmented else 'NT'})",
            *map(page.percent, values),
            page.mean_and_std(float(np.mean(values)), float(np.std(values, ddof=1))),
        ]
        for (network, augmented), values in published.TABLE_5_1.items()
    ]
    return Table(head, rows)


def short(network: str) -> str:
    """Returns a network's name in a difference: "N2", "late"."""
    return network.upper() if network in ("n0", "n1", "n2") else network


def run_rows(results: Sequence[CellResult]) -> list[list[object]]:
    """Returns one line per training, under a head."""
    rows: list[list[object]] = [
        [
            "network", "aggregator", "variant", "fold", "seed", "clips", "actors", "step", "war",
            "uar", "macro_f1", "loss", "seconds",
        ]
    ]  # fmt: skip
    for o in results:
        scores = [o.evaluation["metrics"][s]["value"] for s in ("war", "uar", "macro_f1", "loss")]
        run = [o.cell.network, o.cell.aggregator, o.cell.variant, o.cell.fold, o.cell.seed]
        of_test = [o.evaluation["clips"], o.evaluation["actors"], o.evaluation["step"]]
        rows.append([*run, *of_test, *scores, o.seconds])
    return rows
