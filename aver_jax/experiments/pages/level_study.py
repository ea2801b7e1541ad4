"""The page of the study of sound levels: scores, differences, and predictions that changed."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from aver_jax.experiments.grid.trainings import NETWORKS as NAMES
from aver_jax.experiments.pages import page, provenance, tables
from aver_jax.experiments.pages.mrpn_table import tested_data
from aver_jax.experiments.pages.page import Page, Table
from aver_jax.experiments.pages.power import power_table
from aver_jax.experiments.stats.predictions import (
    CellResult,
    ClipPredictions,
    Failure,
    chosen,
    compare,
)
from aver_jax.input import Dataset

NETWORKS = ("audio", "n2")
SETTINGS = ("off", "rms")
AS_IS = "as is"
#: The comparison that the page is about: network, and level of the tested clips.
PRIMARY = ("audio", "±10 dB")

# (network, setting, level) -> predictions, whose cells tell fold and seed alone.
_Found = Mapping[tuple[str, str, str], Sequence[ClipPredictions]]


def build_page(
    results: Sequence[CellResult],
    predictions: Mapping[str, Sequence[np.ndarray]],
    failures: Sequence[Failure],
    dataset: Dataset,
    command: str,
) -> Page:
    """Returns the page of a finished study.

    Args:
      results: of all finished cells; a cell's variant is one of `SETTINGS`.
      predictions: level -> int [n] of the test clips of each result; `AS_IS` comes first.
      failures: the cells that failed.
      dataset: what was tested.
      command: what was run.
    """
    levels = list(predictions)
    found = {
        (network, setting, level): [
            _at(o, own)
            for o, own in zip(results, predictions[level], strict=True)
            if (o.cell.network, o.cell.variant) == (network, setting)
        ]
        for network in NETWORKS
        for setting in SETTINGS
        for level in levels
    }
    settings = _settings_pairs(found, levels)
    moved = [
        (f"{NAMES[n]}, {s}: {level} - {AS_IS}", found[n, s, level], found[n, s, AS_IS])
        for n in NETWORKS
        for s in SETTINGS
        for level in levels[1:]
    ]
    between, within = _differences(settings), _differences(moved)
    one, other = (found[PRIMARY[0], s, PRIMARY[1]] for s in reversed(SETTINGS))
    clips = np.unique(np.concatenate([o.rows for o in results]))
    evaluation = results[0].evaluation
    context = {
        "dataset": dataset.name,
        "data": tested_data(results, dataset, clips, ""),
        "trainings": provenance.trainings(results),
        "command": command,
        "failures": provenance.missing(failures),
        "networks": [n for n in NETWORKS if chosen(results, network=n)],
        "where": f"{tables.AGGREGATORS['lstm']}; {dataset.name}, {evaluation['protocol']}, "
        f"{evaluation['target']} labels",
        "primary": {"names": list(reversed(SETTINGS)), "found": compare(one, other)},
        "primary_where": f"the {PRIMARY[0]} branch, clips at {PRIMARY[1]}",
        "tested": provenance.tested(results),
        "scores": _table(found, levels, _war),
        "kept": _table(found, levels[1:], _same),
        "between": between,
        "within": within,
        "power": power_table(settings),
    }
    return Page("level_study.md.jinja", context, {}, {"levels": _rows(found)})


def _at(result: CellResult, predictions: np.ndarray) -> ClipPredictions:
    """Returns a result with other predictions; both settings of a fold and seed are one place."""
    plain = result.among(np.ones(len(result.rows), bool))
    cell = dataclasses.replace(result.cell, variant="")
    return dataclasses.replace(plain, cell=cell, predictions=predictions)


def _settings_pairs(found: _Found, levels: Sequence[str]):
    off, rms = SETTINGS
    return [
        (f"{NAMES[n]}, {level}: {rms} - {off}", found[n, rms, level], found[n, off, level])
        for n in NETWORKS
        for level in levels
    ]


def _differences(pairs) -> Table:
    rows = []
    for name, ones, others in pairs:
        comparison = compare(ones, others)
        if comparison is not None:
            one, _, other = name.rpartition(" - ")
            rows.append(tables.difference_row(one, other, comparison))
    return Table(tables.DIFFERENCE_HEAD, rows)


def _war(found: _Found, key: tuple[str, str, str]) -> list[float]:
    return [float((o.predictions == o.labels).mean()) for o in found[key]]


def _same(found: _Found, key: tuple[str, str, str]) -> list[float]:
    """Returns the share of clips, of each run, whose prediction is that of the clip as it is."""
    before = {o.place: o.predictions for o in found[(*key[:2], AS_IS)]}
    return [float((o.predictions == before[o.place]).mean()) for o in found[key]]


def _table(found: _Found, levels: Sequence[str], values) -> Table:
    """Returns networks and settings in rows, levels in columns: mean and std over runs."""
    rows = []
    for network in NETWORKS:
        for setting in SETTINGS:
            if found[network, setting, AS_IS]:
                cells = []
                for level in levels:
                    own = np.array(values(found, (network, setting, level)))
                    std = float(own.std(ddof=1)) if own.size > 1 else float("nan")
                    cells.append(page.mean_and_std(float(own.mean()), std))
                rows.append([f"{NAMES[network]}, {setting}", *cells])
    return Table(["network, level", *levels], rows)


def _rows(found: _Found) -> list[list[object]]:
    """Returns a line for every training and level, under a head."""
    rows: list[list[object]] = [
        ["network", "frontend.level", "clips_at", "fold", "seed", "clips", "war", "same"]
    ]
    for key, own in found.items():
        for o, war, same in zip(own, _war(found, key), _same(found, key), strict=True):
            rows.append([key[0], key[1], key[2], o.cell.fold, o.cell.seed, len(o.rows), war, same])
    return rows
