"""Figures of the occlusion experiment, in the layout of du Toit's Figures 11 and 12."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aver_jax.experiments.pages.figures import COLORS, DASHES, MARKS
from aver_jax.explanation.clip_maps import CONTROLS
from aver_jax.report.figures import LIGHT, Theme, new_figure, themed

#: mean and the ends of its interval, each [.., P, F].
Interval = tuple[np.ndarray, np.ndarray, np.ndarray]


def accuracy_panels(
    scores: Mapping[str, Interval],
    patches: Sequence[float],
    frames: Sequence[int],
    theme: Theme = LIGHT,
) -> Figure:
    """Draws accuracy over occluded frames: a row per method, a column per share of patches.

    Args:
      scores: method -> accuracy [2,P,F], most and least relevant first, with 95% bands.
      patches: P shares.
      frames: F numbers of frames.
      theme: LIGHT or DARK.
    """
    with themed(theme):
        figure = new_figure(1.0 + 1.5 * len(patches), 0.8 + 1.15 * len(scores))
        grid = figure.subplots(len(scores), len(patches), squeeze=False, sharex=True, sharey=True)
        for row, (method, (mean, low, high)) in enumerate(scores.items()):
            for p, share in enumerate(patches):
                axes = grid[row, p]
                for o, (name, color, mark, dash) in enumerate(
                    (
                        ("most relevant first", theme.second, "o", "-"),
                        ("least relevant first", theme.first, "s", (0, (5, 2))),
                    )
                ):
                    axes.fill_between(
                        frames, low[o, p], high[o, p], color=color, alpha=0.15, linewidth=0
                    )
                    axes.plot(
                        frames, mean[o, p], color=color, marker=mark, linestyle=dash, label=name
                    )
                if row == 0:
                    axes.set_title(f"{100 * share:.0f}% of patches", fontsize=9)
                if p == 0:
                    axes.set_ylabel(_label(method), fontsize=8)
        _finish(figure, grid, frames, "accuracy", theme)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def gap_panels(
    gaps: Mapping[str, Interval],
    patches: Sequence[float],
    frames: Sequence[int],
    theme: Theme = LIGHT,
) -> Figure:
    """Draws accuracy of least minus most over occluded frames: a panel per share of patches.

    The controls are grey. Bands are 95% intervals.

    Args:
      gaps: method -> difference [P,F] with its interval.
      patches: P shares.
      frames: F numbers of frames.
      theme: LIGHT or DARK.
    """
    columns = 3
    lines = -(-len(patches) // columns)
    with themed(theme):
        figure = new_figure(3.4 * columns, 1.0 + 2.9 * lines)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes, p in zip(grid.flat, range(len(patches)), strict=False):
            axes.axhline(0, color=theme.muted, linewidth=0.8)
            for number, (method, (mean, low, high)) in enumerate(gaps.items()):
                control = method in CONTROLS
                color = theme.muted if control else COLORS[number % len(COLORS)]
                axes.fill_between(frames, low[p], high[p], color=color, alpha=0.05, linewidth=0)
                axes.plot(
                    frames,
                    mean[p],
                    color=color,
                    marker=MARKS[number % len(MARKS)],
                    linestyle=DASHES[number // len(COLORS) % len(DASHES)],
                    linewidth=1.3,
                    label=method.replace("_", " "),
                )
            axes.set_title(f"{100 * patches[p]:.0f}% of patches")
        for axes in grid.flat[len(patches) :]:
            axes.remove()
        _finish(figure, grid, frames, "accuracy, least minus most", theme)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center")
    return figure


def _finish(figure: Figure, grid, frames: Sequence[int], ylabel: str, theme: Theme) -> None:
    for axes in grid.flat:
        axes.set_xticks(list(frames))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.supxlabel("frames occluded", size=9, color=theme.muted)
    figure.supylabel(ylabel, size=9, color=theme.muted)


def _label(method: str) -> str:
    """Returns a method's name on two lines where it is long."""
    words = method.split("_")
    half = (len(words) + 1) // 2
    return method if len(method) < 12 else f"{' '.join(words[:half])}\n{' '.join(words[half:])}"
