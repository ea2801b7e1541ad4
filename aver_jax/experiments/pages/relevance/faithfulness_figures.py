"""Figure of the faithfulness experiment: deletion, insertion and ROAD curves of all methods."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aver_jax.experiments.pages.figures import COLORS, DASHES, MARKS
from aver_jax.explanation.clip_bootstrap import mean_intervals
from aver_jax.explanation.clip_maps import CONTROLS
from aver_jax.explanation.metrics import curves, road
from aver_jax.report.figures import LIGHT, Theme, new_figure, themed


def curve_panels(
    measured: Mapping[str, Mapping[str, np.ndarray]],
    baselines: Sequence[str],
    theme: Theme = LIGHT,
) -> Figure:
    """Draws means over clips with 95% bands: a row per baseline, ROAD in the third column.

    Args:
      measured: as `faithfulness.build_page` takes it.
      baselines: at least two.
      theme: LIGHT or DARK.
    """
    panels = {}
    for row, baseline in enumerate(baselines):
        panels[row, 0] = (
            f"deletion, {baseline}",
            f"deleted {baseline}",
            curves.SHARES,
            "probability",
        )
        panels[row, 1] = f"insertion, {baseline}", f"kept {baseline}", curves.SHARES, "probability"
    panels[0, 2] = "ROAD, most relevant removed", "road most", road.SHARES, "accuracy"
    panels[1, 2] = "ROAD, least relevant removed", "road least", road.SHARES, "accuracy"
    with themed(theme):
        figure = new_figure(12.4, 0.6 + 3.2 * len(baselines))
        grid = figure.subplots(len(baselines), 3, squeeze=False)
        for place, axes in np.ndenumerate(grid):
            if place not in panels:
                axes.remove()
                continue
            title, column, shares, ylabel = panels[place]
            for number, (method, columns) in enumerate(measured.items()):
                control = method in CONTROLS or ":" in method
                color = theme.muted if control else COLORS[number % len(COLORS)]
                values = np.stack([columns[f"{column} {share:g}"] for share in shares], 1)
                mean, low, high = mean_intervals(values)
                axes.fill_between(shares, low, high, color=color, alpha=0.05, linewidth=0)
                axes.plot(
                    shares,
                    mean,
                    color=color,
                    marker=MARKS[number % len(MARKS)],
                    markersize=3.5,
                    linestyle=DASHES[number // len(COLORS) % len(DASHES)],
                    linewidth=1.2,
                    label=method.replace("_", " "),
                )
            axes.set_title(title)
            axes.set_ylabel(ylabel)
            axes.set_xlabel("tubelets given back" if "kept" in column else "tubelets removed")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(PercentFormatter(1, decimals=0))
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center")
    return figure
