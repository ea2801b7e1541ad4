"""The page of the networks' comparison: its tables and figures; the prose is in its template."""

from collections.abc import Sequence

import numpy as np

from aver_jax.experiments.grid.trainings import NETWORKS
from aver_jax.experiments.pages import figures, provenance, published, tables
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.pages.power import network_pairs, power_table
from aver_jax.experiments.stats.predictions import CellResult, Failure, averaged_confusion, chosen
from aver_jax.input import PROTOCOLS, Dataset
from aver_jax.report.figures import png
from data_prep.wording import counted


def build_page(
    results: Sequence[CellResult],
    failures: Sequence[Failure],
    dataset: Dataset,
    command: str,
    note: str = "",
) -> Page:
    """Returns the page of a finished table.

    Args:
      results: of all finished runs. The first aggregator has the tables; the others are in the
        summary.
      failures: the runs that failed.
      dataset: what was tested.
      command: what was run.
      note: a line about the data.
    """
    evaluation = results[0].evaluation
    clips = np.unique(np.concatenate([o.rows for o in results]))
    networks = [name for name in NETWORKS if chosen(results, network=name)]
    aggregator = results[0].cell.aggregator
    first = chosen(results, aggregator=aggregator, variant="")
    data_words = f"{dataset.name}, {evaluation['protocol']}, {evaluation['target']} labels"
    panels = [
        (NETWORKS[network], averaged_confusion(chosen(first, network=network)))
        for network in networks
    ]
    pictures = {"confusion": png(figures.confusion_panels(panels, evaluation["classes"]))}
    shown = [
        o
        for network in ("video", "audio", "n0", "n2")
        for o in chosen(first, network=network)
        if o.features is not None
    ]
    if shown:
        panels = [(NETWORKS[o.cell.network], figures.embedded(o.features), o.labels) for o in shown]
        pictures["features"] = png(figures.feature_panels(panels, evaluation["classes"]))
    whole_clips = chosen(results, variant=tables.WHOLE_CLIPS)
    protocol = evaluation["protocol"]
    context = {
        "dataset": dataset.name,
        "data": tested_data(results, dataset, clips, note),
        "trainings": provenance.trainings(results),
        "command": command,
        "failures": provenance.missing(failures),
        "networks": networks,
        "where": f"{tables.AGGREGATORS[aggregator]}; {data_words}",
        "data_words": data_words,
        "folds": {score: tables.networks(first, protocol, score) for score in ("war", "uar")},
        "thesis_folds": tables.thesis_folds(dataset.name),
        "augmentation": tables.modalities(chosen(results, aggregator=aggregator), protocol)
        if whole_clips
        else None,
        "thesis_augmentation": tables.thesis_augmentation(),
        "primary": tables.primary(first),
        "tested": provenance.tested(first),
        "differences": tables.differences(first),
        "power": power_table(network_pairs(first)),
        "branches": tables.branches(first),
        "summary": tables.summary(results),
        "aggregator_differences": tables.aggregator_differences(results),
        "accuracies": published.accuracies(first, dataset, evaluation["target"], clips),
        "elsewhere": published.elsewhere(),
        "features": {
            "clips": len(shown[0].rows),
            "fold": shown[0].cell.fold,
            "seed": shown[0].cell.seed,
        }
        if shown
        else None,
    }
    return Page("mrpn_table.md.jinja", context, pictures, {"cells": tables.run_rows(results)})


def tested_data(
    results: Sequence[CellResult], dataset: Dataset, clips: np.ndarray, note: str
) -> dict[str, str]:
    """Returns name -> what was tested, in words."""
    evaluation, actors = results[0].evaluation, dataset.index["actor"]
    folds = sorted({o.cell.fold for o in results})
    dropped = evaluation["dropped"]
    left_out = f"; {counted(dropped, 'clip')} without one left out" if dropped else ""
    count = PROTOCOLS.get(evaluation["protocol"], PROTOCOLS["folder"])
    return {
        "dataset": f"{dataset.name}, {counted(len(dataset), 'clip')} of "
        f"{counted(len(np.unique(actors)), 'actor')} prepared, "
        f"{provenance.skipped_of(dataset.path)} skipped; classes {', '.join(dataset.classes)}",
        **({"note": note} if note else {}),
        "protocol": f"{evaluation['protocol']}, folds {', '.join(map(str, folds))} of {count}",
        "tested": f"{counted(len(clips), 'clip')} of "
        f"{counted(len(np.unique(actors[clips])), 'actor')}, "
        f"{evaluation['target']} labels{left_out}",
        "best trivial baseline": provenance.trivial_of(
            dataset.path, evaluation["protocol"], evaluation["target"]
        ),
    }
