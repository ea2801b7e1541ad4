"""The tables of the networks' comparison, in the layout of the thesis' Tables 5.1 to 5.4."""

from collections.abc import Mapping, Sequence

import numpy as np

from aver_jax.evaluation import metrics
from aver_jax.experiments import page, thesis
from aver_jax.experiments.grid import NETWORKS
from aver_jax.experiments.outcomes import (
    LEAST_ACTORS,
    MARGIN,
    Answers,
    Comparison,
    Outcome,
    Statistic,
    best_single,
    chosen,
    compare,
    pooled,
    spread,
)
from aver_jax.models.resnet import sequence
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
#: The one comparison that a page is about; the others are read beside it.
PRIMARY = ("n2", "n0")
_NAMES = {"lstm": "LSTM", "bilstm": "bidirectional LSTM", "transformer": "Transformer"}
#: Aggregator -> its name for people.
AGGREGATORS = {kind: _NAMES.get(kind, kind) for kind in sequence.AGGREGATORS}
#: The variant of training on whole clips, and how the thesis marks it (Table 5.1).
WHOLE_CLIPS = "nt"
# Resampling fewer seeds than this shows little of what another one would change.
_FEW_SEEDS = 3
#: Of a table of the thesis: it prints the folds alone.
COMPUTED = "mean ± SD (computed here)"
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


def comparisons(
    outcomes: Sequence[Answers], statistic: Statistic = metrics.war
) -> dict[tuple[str, str], Comparison]:
    """(one, other) of DIFFERENCES -> how they compare, where both were run.

    Args:
      outcomes: of one aggregator and variant.
      statistic: the score.
    """
    single = best_single([o for o in outcomes if len(o.rows)], statistic)
    found = {}
    for one, other in DIFFERENCES:
        network = single if other == "best" else other
        if network is not None:
            ones, others = chosen(outcomes, network=one), chosen(outcomes, network=network)
            comparison = compare(ones, others, statistic)
            if comparison is not None:
                found[one, other] = comparison
    return found


_WITHIN = f"{100 * MARGIN:g} points"
_DIFFERENCE = [
    "difference",
    "points",
    "95%",
    "95%, actors alone",
    "each seed",
    "scores higher?",
    f"no worse by {_WITHIN}?",
]
HOW_DECIDED = (
    "Paired: both networks on the same clips, folds and seeds. The first interval decides: actors "
    "and seeds are resampled together, crossed (pigeonhole bootstrap, Owen 2007). *Scores higher*: "
    "the interval lies above 0 (no: below 0). *No worse*: it lies above "
    f"-{_WITHIN} (no: below that), so that equality can be confirmed as well. Else, and always "
    f"with fewer than {LEAST_ACTORS} actors, the answer is undecided. The interval over actors "
    "alone and the difference of each seed are there for information."
)
_WORDS = {True: "yes", False: "no", None: "undecided"}


def differences(outcomes: Sequence[Answers]) -> Table:
    """Paired differences of WAR in percentage points, with intervals and what they decide."""
    single = best_single(outcomes)
    return _DIFFERENCE, [
        _difference(
            short(one), f"best single ({single})" if other == "best" else short(other), found
        )
        for (one, other), found in comparisons(outcomes).items()
    ]


def aggregator_differences(outcomes: Sequence[Answers]) -> Table:
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
        page.points_span(*found.interval),
        page.points_span(*found.actors),
        ", ".join(map(page.points, found.by_seed.values())),
        _WORDS[found.higher],
        _WORDS[found.no_worse],
    ]


def primary(outcomes: Sequence[Answers], where: str) -> str:
    """The answer to the primary question, in a sentence.

    Args:
      outcomes: of one aggregator; those of several variants are compared each with its like.
      where: the clips, in words.
    """
    one, other = PRIMARY
    found = compare(chosen(outcomes, network=one), chosen(outcomes, network=other))
    asked = f"Primary comparison: {short(one)} - {short(other)}, WAR on {where}."
    if found is None:
        return f"{asked} It was not run."
    return (
        f"{asked} {page.points(found.value)} points, 95% {page.points_span(*found.interval)}; "
        f"scores higher: {_WORDS[found.higher]}; no worse by {_WITHIN}: {_WORDS[found.no_worse]}. "
        "Every other comparison is secondary."
    )


def cautions(outcomes: Sequence[Answers], verdicts: int) -> str:
    """What to keep in mind with the intervals, in words.

    Args:
      outcomes: whose actors and seeds count.
      verdicts: how many the page has.
    """
    actors = len(np.unique(np.concatenate([o.actors for o in outcomes])))
    seeds = len({o.cell.seed for o in outcomes})
    text = (
        f"The intervals are not adjusted for the number of comparisons: the page has {verdicts} "
        f"verdicts, of which about {0.05 * verdicts:.1f} would be false if each had a chance of 5% "
        "of being so."
    )
    if actors < LEAST_ACTORS:
        text += (
            f" {counted(actors, 'actor')} tested: an interval over so few is too narrow, so that "
            "nothing is decided."
        )
    if seeds == 1:
        text += " One seed was run: the intervals are over actors alone."
    if seeds < _FEW_SEEDS:
        text += " Few seeds: what another seed would change is hardly known."
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
    head = ["thesis", *names, COMPUTED]
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
    head = ["thesis, RAVDESS", *thesis.RAVDESS_PAIRS, COMPUTED]
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
