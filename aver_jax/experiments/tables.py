"""The tables of the networks' comparison, in the layout of the thesis' Tables 5.1 to 5.4."""

from collections.abc import Mapping, Sequence

import numpy as np

from aver_jax import metrics
from aver_jax.experiments import page, thesis
from aver_jax.experiments.grid import NETWORKS
from aver_jax.experiments.outcomes import (
    Comparison,
    Outcome,
    best_single,
    chosen,
    compare,
    pooled,
    spread,
)
from data_prep.wording import counted

Table = tuple[list[str], list[list[str]]]

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
AGGREGATORS = {"lstm": "LSTM", "bilstm": "bidirectional LSTM", "transformer": "Transformer"}
#: The variant of training on whole clips, and how the thesis marks it (Table 5.1).
WHOLE_CLIPS = "nt"
# The bootstrap needs about this many groups; with fewer its intervals are too narrow.
_FEW_ACTORS = 10
_THESIS_NAMES = {"audio": "AM", "video": "VM", "n0": "JM (N0)"}


def fold_name(protocol: str, fold: int) -> str:
    """A fold as a column's head: "A1,2" of ravdess_pairs, "fold 1" of any other protocol."""
    return thesis.RAVDESS_PAIRS[fold - 1] if protocol == "ravdess_pairs" else f"fold {fold}"


def by_fold(rows: Mapping[str, Sequence[Outcome]], protocol: str, score: str = "war") -> Table:
    """Networks in rows, folds in columns, then mean and deviation over folds and seeds.

    Args:
      rows: the row's name -> its outcomes; a row without outcomes is left out.
      protocol: names the folds.
      score: a key of the results' `metrics`.
    """
    folds = sorted({o.cell.fold for some in rows.values() for o in some})
    head = ["network", *(fold_name(protocol, fold) for fold in folds), "mean ± SD"]
    lines = []
    for name, some in rows.items():
        if some:
            means = [spread(chosen(some, fold=fold), score).mean for fold in folds]
            whole = page.mean_and_deviation(*spread(some, score)[:2])
            lines.append([name, *map(page.percent, means), whole])
    return head, lines


def modalities(outcomes: Sequence[Outcome], protocol: str) -> Table:
    """Table 5.1: each modality and both, without (NT) and with (T) temporal augmentation."""
    rows = {}
    for network, name in _THESIS_NAMES.items():
        own = chosen(outcomes, network=network)
        rows[f"{name} (NT)"] = chosen(own, variant=WHOLE_CLIPS)
        rows[f"{name} (T)"] = chosen(own, variant="")
    return by_fold(rows, protocol)


def networks(outcomes: Sequence[Outcome], protocol: str, score: str = "war") -> Table:
    """Tables 5.2 and 5.3, and the single modalities above them."""
    rows = {name: chosen(outcomes, network=network) for network, name in NETWORKS.items()}
    return by_fold(rows, protocol, score)


def summary(outcomes: Sequence[Outcome]) -> Table:
    """Table 5.4: every network with every aggregator, WAR and UAR with intervals over actors."""
    head = ["network, aggregator", "WAR", "UAR", "WAR, pooled", "95%", "UAR, pooled", "95%"]
    lines = []
    for network, name in NETWORKS.items():
        for aggregator, known in AGGREGATORS.items():
            own = chosen(outcomes, network=network, aggregator=aggregator, variant="")
            if not own:
                continue
            scores = [page.mean_and_deviation(*spread(own, s)[:2]) for s in ("war", "uar")]
            cells = []
            for statistic in (metrics.war, metrics.uar):
                found = pooled(own, statistic)
                cells += [page.percent(found.value), page.span(found.low, found.high)]
            lines.append([f"{name}, {known}", *scores, *cells])
    return head, lines


def comparisons(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], Comparison]:
    """(one, other) of DIFFERENCES -> how they compare, where both were run.

    Args:
      outcomes: of one aggregator and variant.
    """
    single = best_single(outcomes)
    found = {}
    for one, other in DIFFERENCES:
        network = single if other == "best" else other
        if network is not None:
            comparison = compare(chosen(outcomes, network=one), chosen(outcomes, network=network))
            if comparison is not None:
                found[one, other] = comparison
    return found


_DIFFERENCE = ["difference", "points", "95% over actors", "each seed", "95% over seeds", "better?"]


def differences(outcomes: Sequence[Outcome]) -> Table:
    """Paired differences of WAR in percentage points, with both intervals and what they decide."""
    single = best_single(outcomes)
    return _DIFFERENCE, [
        _difference(
            short(one), f"best single ({single})" if other == "best" else short(other), found
        )
        for (one, other), found in comparisons(outcomes).items()
    ]


def aggregator_differences(outcomes: Sequence[Outcome]) -> Table:
    """By how much every other aggregator is better than the first, for each network."""
    first, *others = list(dict.fromkeys(o.cell.aggregator for o in outcomes))
    lines = []
    for network, name in NETWORKS.items():
        for other in others:
            own = chosen(outcomes, network=network, variant="")
            found = compare(chosen(own, aggregator=other), chosen(own, aggregator=first))
            if found is not None:
                lines.append(
                    _difference(f"{name}: {AGGREGATORS[other]}", AGGREGATORS[first], found)
                )
    return _DIFFERENCE, lines


def _difference(one: str, other: str, found: Comparison) -> list[str]:
    return [
        f"{one} - {other}",
        page.points(found.value),
        page.points_span(*found.actors),
        ", ".join(map(page.points, found.by_seed.values())),
        page.points_span(*found.seeds),
        {True: "yes", False: "no", None: "undecided"}[found.better],
    ]


def cautions(outcomes: Sequence[Outcome]) -> str:
    """What to keep in mind with the intervals, in words."""
    actors = len(np.unique(np.concatenate([o.actors for o in outcomes])))
    seeds = len({o.cell.seed for o in outcomes})
    text = "The intervals are not adjusted for the number of comparisons."
    if actors < _FEW_ACTORS:
        text += f" {counted(actors, 'actor')} tested: an interval over so few is too narrow."
    if seeds == 1:
        text += " One seed was run, which decides nothing."
    return text


def opinions(outcomes: Sequence[Outcome]) -> Table:
    """What the branches inside a fusion network say by themselves, beside their own trainings."""
    head = ["branch of", "video", "audio"]
    lines = []
    for network, name in NETWORKS.items():
        own = chosen(outcomes, network=network)
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
    return head, lines


def thesis_folds(dataset: str) -> Table:
    """Table 5.2 or 5.3 as printed, with the means of its rows; empty for another dataset."""
    found = thesis.table_of(dataset)
    if found is None:
        return [], []
    names, rows = found
    head = ["thesis", *names, "mean ± SD"]
    return head, [
        [
            NETWORKS[network],
            *map(page.percent, values),
            page.mean_and_deviation(float(np.mean(values)), float(np.std(values, ddof=1))),
        ]
        for network, values in rows.items()
    ]


def thesis_augmentation() -> Table:
    """Table 5.1 as printed, with the means of its rows."""
    head = ["thesis, RAVDESS", *thesis.RAVDESS_PAIRS, "mean ± SD"]
    return head, [
        [
            f"{_THESIS_NAMES[network]} ({'T' if augmented else 'NT'})",
            *map(page.percent, values),
            page.mean_and_deviation(float(np.mean(values)), float(np.std(values, ddof=1))),
        ]
        for (network, augmented), values in thesis.TABLE_5_1.items()
    ]


def short(network: str) -> str:
    """A network's name in a difference: "N2", "late"."""
    return network.upper() if network in ("n0", "n1", "n2") else network
