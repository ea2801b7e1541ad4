"""The figure of a timeline: class probabilities over the seconds of a clip."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from aver_jax.report.answers import BRANCHES
from aver_jax.report.figures import LIGHT, Theme, new_figure, themed

# Okabe and Ito's set without its yellow, which vanishes on white; dashes tell further classes.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555b66")
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_WIDTH = 9.6


def timeline_figure(
    spans,
    probabilities,
    classes: Sequence[str],
    branches: Mapping[str, np.ndarray],
    title: str,
    unseen: Sequence[tuple[float, float]] = (),
    theme: Theme = LIGHT,
) -> Figure:
    """Probabilities at the middle of each window, a line per class.

    A strip above the lines names the predicted class of every stretch.

    Args:
      spans: float [n, 2], start and stop of the windows in seconds.
      probabilities: float [n, C].
      classes: C names.
      branches: "video" or "audio" -> float [n, C], drawn in smaller axes below.
      title: above the figure.
      unseen: (start, stop) in seconds where no face was found, shaded.
      theme: colours of the ground and the letters.
    """
    spans, probabilities = np.asarray(spans, np.float64), np.asarray(probabilities)
    centres = spans.mean(axis=1)
    heights = [0.25, 3.0] + [1.2] * len(branches)
    with themed(theme):
        figure = new_figure(_WIDTH, 1.2 + sum(heights))
        grid = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        strip, top = grid[:2]
        _best(strip, spans, probabilities, classes)
        strip.set_title(title)
        _lines(top, centres, probabilities, classes, 1.8)
        top.set_ylabel("probability")
        across = int(0.95 * _WIDTH / (0.5 + 0.085 * max(map(len, classes))))
        figure.legend(
            *top.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=max(1, min(len(classes), across)),
            handlelength=1.6,
            columnspacing=1.4,
        )
        for axes, (name, opinions) in zip(grid[2:], branches.items(), strict=True):
            _lines(axes, centres, np.asarray(opinions), classes, 1.1)
            axes.set_ylabel(BRANCHES[name])
        for axes in grid[1:]:
            axes.set_ylim(0, 1)
            axes.set_xlim(spans[0, 0], spans[-1, 1])
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_yticks([0, 0.5, 1])
            for start, stop in unseen:
                axes.axvspan(start, stop, color=theme.muted, alpha=0.15, linewidth=0)
        width = float(spans[0, 1] - spans[0, 0])
        note = f"seconds (middle of a window of {width:.2f} s)"
        grid[-1].set_xlabel(note + ("; shaded: no face found" if unseen else ""))
        grid[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def _best(axes, spans, probabilities, classes) -> None:
    """A strip of the predicted classes, each stretch of one class with its name."""
    best = probabilities.argmax(axis=1)
    changes = np.flatnonzero(np.diff(best)) + 1
    middles = spans.mean(axis=1)
    edges = [spans[0, 0], *(middles[changes - 1] + middles[changes]) / 2, spans[-1, 1]]
    for place, (start, stop) in enumerate(itertools.pairwise(edges)):
        chosen = best[0 if place == 0 else changes[place - 1]]
        color = COLORS[chosen % len(COLORS)]
        axes.axvspan(start, stop, color=color, linewidth=0)
        inches = (stop - start) / (edges[-1] - edges[0]) * 0.9 * _WIDTH
        # A name that does not fit would run into its neighbours.
        if 0.09 * len(classes[chosen]) < inches:
            middle = (start + stop) / 2
            words = {"ha": "center", "va": "center", "size": 8, "weight": "bold"}
            axes.text(middle, 0.45, classes[chosen], color=_letters_on(color), **words)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _letters_on(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#10141c" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def _lines(axes, centres, values, classes, width):
    for place, name in enumerate(classes):
        axes.plot(
            centres,
            values[:, place],
            color=COLORS[place % len(COLORS)],
            linestyle=_DASHES[place // len(COLORS) % len(_DASHES)],
            linewidth=width,
            # A line through one point would be invisible.
            marker="o" if len(centres) < 2 else None,
            label=name,
            clip_on=False,
        )
