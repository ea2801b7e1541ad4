"""The page of the occlusion experiment: accuracy in every cell, least minus most, their ranking."""

from collections.abc import Mapping, Sequence

import numpy as np

from aver_jax.experiments.pages import provenance
from aver_jax.experiments.pages.page import Page, Table, percent, points, points_span, span
from aver_jax.experiments.pages.relevance import occlusion_figures
from aver_jax.explanation.clip_bootstrap import mean_intervals
from aver_jax.explanation.ranking import ORDERS
from aver_jax.explanation.tested import Tested
from aver_jax.report.figures import png

_DPI = 110


def build_page(
    tested: Tested,
    predicted: Mapping[tuple[str, str], np.ndarray],
    patches: Sequence[float],
    frames: Sequence[int],
    target: str,
    clips_per_s: float,
    command: str,
) -> Page:
    """Returns the page.

    Args:
      tested: the run and its clips.
      predicted: (method, baseline) -> int [n,2,P,F], the class predicted in each cell; the orders
        are those of `ranking.ORDERS`.
      patches: P shares of patches.
      frames: F numbers of frames.
      target: whose class was explained.
      clips_per_s: masked clips a second; NaN if not measured.
      command: the whole command.
    """
    methods = list(dict.fromkeys(m for m, _ in predicted))
    baselines = list(dict.fromkeys(b for _, b in predicted))
    labels = tested.labels[:, None, None, None]
    right = {key: np.float64(classes == labels) for key, classes in predicted.items()}
    scores = {key: mean_intervals(values) for key, values in right.items()}
    # Clip by clip before resampling: what makes a clip hard counts on both sides.
    gaps = {key: mean_intervals(_gap(values)) for key, values in right.items()}
    whole, low, high = (float(x[0, 0, 0]) for x in next(iter(scores.values())))
    context = {
        "data": provenance.tested_run(tested, target),
        "command": command,
        "accuracy": f"{percent(whole)} {span(low, high)}",
        "clips_per_s": "-" if np.isnan(clips_per_s) else f"{clips_per_s:.0f}",
        "cells": len(ORDERS) * len(patches) * len(frames),
        "baselines": baselines,
        "ranking": _ranking(right, methods, baselines),
        "half": _half(scores, gaps, methods, baselines),
        "half_share": percent(patches[-1]),
    }
    pictures = {}
    for baseline in baselines:
        own = {m: scores[m, baseline] for m in methods}
        pictures[f"accuracy_{baseline}"] = occlusion_figures.accuracy_panels(own, patches, frames)
        own = {m: gaps[m, baseline] for m in methods}
        pictures[f"difference_{baseline}"] = occlusion_figures.gap_panels(own, patches, frames)
    figures = {name: png(figure, _DPI) for name, figure in pictures.items()}
    numbers = {"cells": _rows(scores, gaps, patches, frames)}
    return Page("occlusion.md.jinja", context, figures, numbers)


def _gap(right: np.ndarray) -> np.ndarray:
    """Returns least minus most, [n,P,F], of what is right [n,2,P,F]."""
    return right[:, ORDERS.index("least")] - right[:, ORDERS.index("most")]


def _ranking(right, methods, baselines) -> Table:
    """Returns methods by their mean gap over the cells in which something is occluded."""
    means = {}
    for method in methods:
        over_cells = []
        for baseline in baselines:
            gap = _gap(right[method, baseline])
            over_cells.append(gap.reshape(len(gap), -1)[:, 1:].mean(1))
        means[method] = mean_intervals(np.stack([*over_cells, np.mean(over_cells, 0)], 1))
    order = sorted(methods, key=lambda m: -means[m][0][-1])
    rows = []
    for place, method in enumerate(order, 1):
        cells = [
            f"{points(v)} {points_span(*ends)}" for v, *ends in zip(*means[method], strict=True)
        ]
        rows.append([method, *cells, str(place)])
    return Table(["method", *baselines, "mean", "rank"], rows)


def _half(scores, gaps, methods, baselines) -> Table:
    """Returns the accuracy with the largest share of patches occluded and no whole frame."""
    rows = []
    for baseline in baselines:
        for method in methods:
            found, gap = scores[method, baseline], gaps[method, baseline]
            cells = []
            for order in range(len(ORDERS)):
                mean, low, high = (float(x[order, -1, 0]) for x in found)
                cells.append(f"{percent(mean)} {span(low, high)}")
            mean, *ends = (float(x[-1, 0]) for x in gap)
            rows.append([method, baseline, *cells, f"{points(mean)} {points_span(*ends)}"])
    return Table(["method", "baseline", "most first", "least first", "least - most"], rows)


def _rows(scores, gaps, patches, frames) -> list[list[object]]:
    """Returns a line for every method, baseline, order and cell, and for the difference."""
    rows: list[list[object]] = [
        ["method", "baseline", "order", "patches", "frames", "accuracy", "low", "high"]
    ]
    for (method, baseline), found in scores.items():
        of_order = [tuple(x[i] for x in found) for i in range(len(ORDERS))]
        names = [*ORDERS, "least - most"]
        for name, values in zip(names, [*of_order, gaps[method, baseline]], strict=True):
            for p, share in enumerate(patches):
                for f, count in enumerate(frames):
                    cell = [float(x[p, f]) for x in values]
                    rows.append([method, baseline, name, share, count, *cell])
    return rows
