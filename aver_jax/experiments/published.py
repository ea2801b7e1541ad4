"""People and published numbers: beside ours where they are of the same dataset, else apart."""

from collections.abc import Sequence

import numpy as np

from aver_jax.experiments import human, page, thesis
from aver_jax.experiments.grid import NETWORKS
from aver_jax.experiments.outcomes import Outcome, chosen, spread
from aver_jax.experiments.page import Page
from aver_jax.input import Dataset

_DATASETS = {"crema_d": "CREMA-D (6 classes)", "ravdess": "RAVDESS (8 classes)"}


def add_published(
    result: Page, outcomes: Sequence[Outcome], dataset: Dataset, target: str, tested: np.ndarray
) -> None:
    """Adds the table of people and of published methods.

    Args:
      result: the page.
      outcomes: ours, of one aggregator.
      dataset: what they were tested on.
      target: whose opinion the labels are; votes of people say something of intended ones alone.
      tested: the rows that were tested.
    """
    if dataset.name not in _DATASETS:
        result.table(
            "For orientation only: accuracies published on other data, with which those on "
            f"{dataset.name} cannot be compared",
            ["method", *_DATASETS.values(), "protocol"],
            _elsewhere(),
        )
        result.text(thesis.FOOTNOTE)
        return
    rows = []
    for network, name in NETWORKS.items():
        own = chosen(outcomes, network=network)
        if own:
            war = page.mean_and_deviation(*spread(own)[:2])
            rows.append([f"{name}, this page", war, own[0].results["protocol"], "this page"])
    source = human.SOURCES[dataset.name]
    for modality, share in human.SINGLE_RATER[dataset.name].items():
        rows.append([_rater(modality), page.printed(share), "all clips", source])
    if target == "intended":
        for modality, share in human.majority_of(dataset.index, tested).items():
            name = f"majority of human raters, {modality}"
            protocol = "the tested clips, a tie is a miss"
            rows.append([name, page.percent(share), protocol, "the dataset's votes"])
    for entry in thesis.PUBLISHED:
        if dataset.name in entry.accuracy:
            share = page.printed(entry.accuracy[dataset.name])
            rows.append([entry.method, share, entry.protocol, entry.source])
    result.table(
        f"Accuracies on {dataset.name}, each with its protocol",
        ["method", "accuracy", "protocol", "source"],
        rows,
    )


def _elsewhere() -> list[list[str]]:
    entries = [(entry.method, entry.accuracy, entry.protocol) for entry in thesis.PUBLISHED]
    for modality in human.VOTES:
        shares = {d: human.SINGLE_RATER[d].get(modality) for d in _DATASETS}
        entries.append((_rater(modality), shares, "people, all clips"))
    return [[m, *(page.printed(a.get(d)) for d in _DATASETS), how] for m, a, how in entries]


def _rater(modality: str) -> str:
    return f"one human rater, {modality}"
