"""Figures of studies: confusion matrices side by side, deep features, scores along a share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, PercentFormatter

from aver_jax.report.figures import LIGHT, Theme, new_figure, themed

#: Of Okabe and Ito, dark enough on white; marks and dashes tell the series apart as well.
COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#4d4d4d", "#56b4e9", "#e69f00",
)  # fmt: skip
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))

# Inches of a legend's longest entry, "late fusion" with its line.
_LEGEND_WIDTH = 1.45


def confusion_panels(
    panels: Sequence[tuple[str, np.ndarray]], classes: Sequence[str], theme: Theme = LIGHT
) -> Figure:
    """Returns row-normalised confusion matrices, one panel per network (thesis, Figs 5.6 and 5.7).

    Args:
      panels: (title, float [C, C] with rows that sum to 1, NaN where unknown).
      classes: C names.
      theme: LIGHT or DARK.
    """
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    side = 1.0 + 0.46 * len(classes)
    with themed(theme):
        figure = new_figure(columns * side, lines * (side + 0.25))
        ramp = LinearSegmentedColormap.from_list("recall", theme.ramp)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for number, (axes, (title, shares)) in enumerate(zip(grid.flat, panels, strict=False)):
            axes.imshow(shares, cmap=ramp, vmin=0, vmax=1)
            for (row, column), share in np.ndenumerate(shares):
                if np.isnan(share) or round(100 * share) == 0:
                    continue
                red, green, blue, _ = ramp(share)
                light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
                axes.text(
                    column, row, f"{100 * share:.0f}", ha="center", va="center", size=8,
                    color="#10141c" if light else "#ffffff",
                    weight="bold" if row == column else "normal",
                )  # fmt: skip
            axes.set_title(title)
            axes.set_xticks(range(len(classes)), classes, rotation=90)
            axes.set_yticks(range(len(classes)), classes)
            # The panel above an empty place keeps the names of its columns.
            axes.tick_params(length=0, labelbottom=number + columns >= len(panels))
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        figure.supxlabel("predicted class", size=9, color=theme.muted)
        figure.supylabel("true class; % of its clips", size=9, color=theme.muted)
    return figure


def feature_panels(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    theme: Theme = LIGHT,
) -> Figure:
    """Draws clips as points by the nearness of their features, a panel per network (Fig. 5.1).

    Args:
      panels: (title, float [n, 2] from `embedded`, int [n] true class).
      classes: C names.
      theme: LIGHT or DARK.
    """
    with themed(theme):
        figure = new_figure(0.2 + 2.9 * len(panels), 3.3)
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, points, labels) in zip(row, panels, strict=True):
            for number, name in enumerate(classes):
                mine = points[labels == number]
                axes.scatter(
                    *mine.T, s=20, label=name, linewidth=0,
                    color=COLORS[number % len(COLORS)], marker=MARKS[number % len(MARKS)],
                )  # fmt: skip
            axes.set_title(title)
            # Distances and directions of t-SNE have no unit.
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(True)
            axes.set_aspect("equal", "datalim")
        handles, names = row[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(classes))
    return figure


def embedded(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns features [n, D] laid out in the plane by t-SNE: float [n, 2], the same every time."""
    from sklearn.manifold import TSNE  # two seconds that other figures need not wait for
    from threadpoolctl import threadpool_limits  # scikit-learn brings it along

    # A perplexity must be smaller than the number of points.
    perplexity = min(30.0, max(1.0, (len(features) - 1) / 3))
    rule = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    # One thread: several wait for each other at every one of its many short steps.
    with threadpool_limits(1):
        return rule.fit_transform(np.asarray(features, np.float64))


@dataclass(frozen=True)
class Panel:
    """One plot of `score_curves`; `series`: network -> share -> the scores of its runs."""

    title: str
    xlabel: str
    ylabel: str
    series: Mapping[str, Mapping[float, Sequence[float]]]


def score_curves(panels: Mapping[tuple[int, int], Panel], theme: Theme = LIGHT) -> Figure:
    """Scores of networks along a share: the mean over runs as a line, their range as a band.

    Args:
      panels: (line, column) of the panel -> what it shows.
      theme: LIGHT or DARK.
    """
    lines, columns = (1 + max(place[axis] for place in panels) for axis in (0, 1))
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel.series))
    with themed(theme):
        figure = new_figure(0.6 + 3.9 * columns, 0.7 + 2.7 * lines)
        grid = figure.subplots(lines, columns, squeeze=False, sharey="row")
        for place, axes in np.ndenumerate(grid):
            if place not in panels:
                axes.remove()
                continue
            panel = panels[place]
            for name, points in panel.series.items():
                number = names.index(name)
                x = np.array(list(points))
                values = [np.asarray(v, float) for v in points.values()]
                color = COLORS[number % len(COLORS)]
                means = [v.mean() for v in values]
                axes.fill_between(
                    x, [v.min() for v in values], [v.max() for v in values],
                    color=color, alpha=0.12, linewidth=0,
                )  # fmt: skip
                axes.plot(
                    x, means, color=color, label=name,
                    marker=MARKS[number % len(MARKS)], linestyle=DASHES[number % len(DASHES)],
                )  # fmt: skip
            axes.set_title(panel.title)
            axes.set_xlabel(panel.xlabel)
            if place[1] == 0:
                axes.set_ylabel(panel.ylabel)
            ticks = sorted({x for points in panel.series.values() for x in points})
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(PercentFormatter(1, decimals=0))
        handles, labels = next(iter(grid.flat)).get_legend_handles_labels()
        fitting = int(figure.get_figwidth() / _LEGEND_WIDTH)
        figure.legend(handles, labels, loc="outside lower center", ncols=min(fitting, len(labels)))
    return figure
