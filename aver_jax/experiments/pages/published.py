"""Numbers of others: the thesis (Chang 2021, chapter 5), published methods and human raters.

All values are shares (0 to 1), copied as printed; means are computed here, from the folds. The
thesis reports on its validation actors: it has no separate test actors, and does not say how epochs
were chosen. Of human raters, a clip's intended emotion counts as recognised when more raters chose
it than any other; a tie is a miss: the crowd did not agree on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aver_jax.experiments.grid.trainings import NETWORKS
from aver_jax.experiments.pages import page
from aver_jax.experiments.pages.page import Table
from aver_jax.experiments.stats.predictions import CellResult, chosen, spread
from aver_jax.input import Dataset

_DATASETS = {"crema_d": "CREMA-D (6 classes)", "ravdess": "RAVDESS (8 classes)"}


def accuracies(
    results: Sequence[CellResult], dataset: Dataset, target: str, tested: np.ndarray
) -> Table | None:
    """Returns ours beside those of people and of published methods; None for other datasets.

    Args:
      results: ours, of one aggregator.
      dataset: what they were tested on.
      target: whose labels; votes of people say something of intended ones alone.
      tested: the rows that were tested.
    """
    if dataset.name not in _DATASETS:
        return None
    rows = []
    for network, name in NETWORKS.items():
        own = chosen(results, network=network)
        if own:
            war = page.mean_and_std(*spread(own)[:2])
            rows.append([f"{name}, this page", war, own[0].evaluation["protocol"], "this page"])
    source = SOURCES[dataset.name]
    for modality, share in SINGLE_RATER[dataset.name].items():
        rows.append([_rater(modality), page.printed(share), "all clips", source])
    if target == "intended":
        for modality, share in majority_of(dataset.index, tested).items():
            name = f"majority of human raters, {modality}"
            protocol = "the tested clips, a tie is a miss"
            rows.append([name, page.percent(share), protocol, "the dataset's votes"])
    for entry in PUBLISHED:
        if dataset.name in entry.accuracy:
            share = page.printed(entry.accuracy[dataset.name])
            rows.append([entry.method, share, entry.protocol, entry.source])
    return Table(["method", "accuracy", "protocol", "source"], rows)


def elsewhere() -> Table:
    """Returns the accuracies of people and of published methods on their own datasets."""
    entries = [(entry.method, entry.accuracy, entry.protocol) for entry in PUBLISHED]
    for modality in VOTES:
        shares = {d: SINGLE_RATER[d].get(modality) for d in _DATASETS}
        entries.append((_rater(modality), shares, "people, all clips"))
    rows = [[m, *(page.printed(a.get(d)) for d in _DATASETS), how] for m, a, how in entries]
    return Table(["method", *_DATASETS.values(), "protocol"], rows)


def _rater(modality: str) -> str:
    return f"one human rater, {modality}"


#: Modality -> column of a prepared dataset's index.
VOTES = {"audio": "voice_vote", "video": "face_vote", "both": "multimodal_vote"}

#: Dataset -> modality -> accuracy of one rater.
SINGLE_RATER = {
    "crema_d": {"audio": 0.409, "video": 0.582, "both": 0.636},
    "ravdess": {"both": 0.723},
}
#: Dataset -> where its single-rater numbers are from.
SOURCES = {
    "crema_d": "Cao et al. 2014, all clips",
    "ravdess": "Chang 2021, chapter 5.1.2, after Livingstone and Russo 2018",
}


def majority_accuracy(votes, labels) -> float | None:
    """Returns the share of clips whose majority vote is the label.

    Args:
      votes: text [n], the class most raters chose; a tie is written "ANG:DIS", "" is no vote.
      labels: text [n], the intended class.

    Returns:
      The share of hits among the clips with votes, ties counted as misses; None without votes.
    """
    votes, labels = np.asarray(votes, str), np.asarray(labels, str)
    voted = votes != ""
    return float((votes[voted] == labels[voted]).mean()) if voted.any() else None


def majority_of(index: Mapping[str, np.ndarray], rows) -> dict[str, float]:
    """Returns majority-vote accuracy by modality, on rows of an index; {} without votes."""
    found = {
        name: majority_accuracy(index[column][rows], index["label"][rows])
        for name, column in VOTES.items()
    }
    return {name: value for name, value in found.items() if value is not None}


#: Folds of Tables 5.1 and 5.2: the two actors held out, as in protocol ravdess_pairs.
RAVDESS_PAIRS = tuple(f"A{actor},{actor + 1}" for actor in range(1, 24, 2))
#: Folds of Table 5.3; which actors they hold is not published.
CREMA_D_SPLITS = tuple(f"S{number}" for number in range(1, 10))


def _shares(text: str) -> tuple[float, ...]:
    return tuple(round(float(value) / 100, 4) for value in text.split())


#: Table 5.1, RAVDESS: (network, with temporal augmentation) -> accuracy per pair of actors.
TABLE_5_1 = {
    ("audio", False): _shares("70.8 55.0 57.5 74.1 43.5 65.8 59.8 57.5 51.6 55.5 55.8 63.3"),
    ("audio", True): _shares("71.6 77.5 71.6 90.0 55.8 69.1 70.0 69.1 57.5 63.3 68.3 68.3"),
    ("video", False): _shares("82.5 70.0 66.7 74.1 80.3 63.3 71.3 60.0 63.3 70.8 65.8 70.8"),
    ("video", True): _shares("86.6 75.0 70.6 76.6 87.3 69.1 73.3 65.0 64.1 78.3 66.6 74.1"),
    ("n0", False): _shares("90.8 89.1 85.2 89.3 78.5 85.5 77.5 75.5 76.3 85.2 82.8 80.0"),
    ("n0", True): _shares("97.5 90.3 87.5 97.5 86.5 87.5 82.4 79.6 83.2 89.0 85.5 84.2"),
}

#: Table 5.2, RAVDESS: network -> accuracy per pair of actors.
TABLE_5_2 = {
    "late": _shares("61.6 92.1 87.5 96.6 66.6 87.5 80.8 85.0 81.6 87.5 86.6 65.8"),
    "n0": _shares("97.5 90.3 87.5 97.5 86.5 87.5 82.4 79.6 83.2 89.0 85.5 84.2"),
    "n1": _shares("97.5 89.1 88.3 97.5 90.0 90.0 77.5 89.1 86.6 92.5 89.1 90.6"),
    "n2": _shares("97.5 92.1 90.8 97.5 91.4 90.0 84.3 89.7 89.8 93.3 90.6 90.6"),
}

#: Table 5.3, CREMA-D: network -> accuracy per split.
TABLE_5_3 = {
    "late": _shares("76.5 79.9 76.6 62.3 78.2 81.8 78.8 80.0 77.5"),
    "n0": _shares("77.3 81.3 79.2 74.8 78.6 82.0 75.1 79.5 77.5"),
    "n1": _shares("72.6 82.3 77.3 74.8 74.2 82.0 74.8 79.3 75.8"),
    "n2": _shares("79.5 83.0 83.0 76.8 81.9 82.0 80.0 80.5 78.6"),
}


@dataclass(frozen=True)
class Published:
    """A number of others: accuracy by dataset, and how it was come by."""

    method: str
    accuracy: Mapping[str, float]
    protocol: str
    source: str


def _mean(values: tuple[float, ...]) -> float:
    return round(float(np.mean(values)), 4)


_THESIS = "Chang 2021, means (computed here) of Tables 5.2 and 5.3"
_DISJOINT = "actor-disjoint; its validation actors, it has no separate test actors"

#: For the table in the layout of Table 5.4.
PUBLISHED = (
    *(
        Published(
            f"thesis: {name}, ResNet-18 + LSTM",
            {"ravdess": _mean(TABLE_5_2[network]), "crema_d": _mean(TABLE_5_3[network])},
            _DISJOINT,
            _THESIS,
        )
        for network, name in (
            ("late", "late fusion"),
            ("n0", "N0"),
            ("n1", "N1"),
            ("n2", "N2 (MRPN)"),
        )
    ),
    Published(
        "thesis: N2 (MRPN), ResNet-18 + Transformer",
        {"ravdess": 0.914, "crema_d": 0.8315},
        _DISJOINT,
        "Chang 2021, Table 5.4",
    ),
    Published(
        "TimeSformer from scratch",
        {"crema_d": 0.81},
        "random 90/5/5 of clips, actors shared",
        "du Toit 2022",
    ),
    Published(
        "HiCMAE-B",
        {"ravdess": 0.880, "crema_d": 0.849},
        "5 or 6 folds, actor-disjoint, best epoch on test",
        "Sun et al. 2024, about",
    ),
    Published(
        "MultiMAE-DER", {"ravdess": 0.836, "crema_d": 0.794}, "see its paper", "Xiang et al. 2024"
    ),
    Published(
        "VQ-MAE-AV", {"ravdess": 0.832, "crema_d": 0.784}, "see its paper", "Sadok et al. 2023"
    ),
)


def table_of(dataset: str) -> tuple[tuple[str, ...], Mapping[str, tuple[float, ...]]] | None:
    """Returns (folds, accuracies of Table 5.2 or 5.3) of a dataset, None for another one."""
    tables = {"ravdess": (RAVDESS_PAIRS, TABLE_5_2), "crema_d": (CREMA_D_SPLITS, TABLE_5_3)}
    return tables.get(dataset)
