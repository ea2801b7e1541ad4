"""The figure of a timeline: class probabilities over the seconds of a clip."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from aver_jax.report.figures import LIGHT, Theme, new_figure, themed

# Okabe and Ito's set without its yellow, which vanishes on white. Nothing is told by colour alone:
# neighbours have other dashes, and names stand at the ends of lines.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555b66")
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_WIDTH = 9.6
# Names at the ends of lines: how many, how long, and how far apart (of the axes' height).
_MOST_ENDS = 18
_LONGEST_END = 14
_END_STEP = 0.055


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Seconds of a clip, and what is said of them."""

    start: float
    stop: float
    words: str


def timeline_figure(
    spans,
    probabilities,
    classes: Sequence[str],
    branches: Mapping[str, np.ndarray],
    title: str,
    unseen: Sequence[tuple[float, float]] = (),
    runs: Sequence[int] = (),
    alone: Sequence[Stretch] = (),
    uncovered: Sequence[Stretch] = (),
    theme: Theme = LIGHT,
) -> Figure:
    """Returns probabilities at the middle of each window, a line per class.

    A strip above the lines names the predicted class of every stretch.

    Args:
      spans: float [n, 2], start and stop of the windows in seconds.
      probabilities: float [n, C].
      classes: C names.
      branches: "video" or "audio" -> float [n, C], drawn in smaller axes below; NaN draws nothing.
      title: above the figure.
      unseen: (start, stop) in seconds where no face was found, shaded.
      runs: where lines break, positions among the windows in which others begin.
      alone: stretches predicted by one branch, marked with their words.
      uncovered: stretches without a window, hatched with their words.
      theme: colours of the ground and the letters.
    """
    spans, probabilities = np.asarray(spans, np.float64), np.asarray(probabilities)
    centres = spans.mean(axis=1)
    bounds = [0, *runs, len(spans)]
    pieces = [slice(*pair) for pair in itertools.pairwise(bounds)]
    ends = [*spans.ravel(), *(x for part in uncovered for x in (part.start, part.stop))]
    heights = [0.25, 3.0] + [1.2] * len(branches)
    with themed(theme):
        figure = new_figure(_WIDTH, 1.2 + sum(heights))
        grid = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        strip, top = grid[:2]
        for piece in pieces:
            _best(strip, spans[piece], probabilities[piece], classes, max(ends) - min(ends))
        _bare(strip)
        strip.set_title(title)
        _lines(top, centres, probabilities, classes, 1.8, pieces)
        reach = (spans[-1, 1] - min(ends)) / max(max(ends) - min(ends), 1e-9)
        _line_ends(top, (centres[-1], reach + 0.02), probabilities[-1], classes, theme)
        top.set_ylabel("probability")
        across = int(0.95 * _WIDTH / (0.7 + 0.085 * max(map(len, classes))))
        figure.legend(
            *top.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=max(1, min(len(classes), across)),
            handlelength=3,
            columnspacing=1.4,
        )
        for axes, (name, branch_predictions) in zip(grid[2:], branches.items(), strict=True):
            _lines(axes, centres, np.asarray(branch_predictions), classes, 1.1, pieces)
            axes.set_ylabel(f"{name} alone")
        for axes in grid[1:]:
            axes.set_ylim(0, 1)
            axes.set_xlim(min(ends), max(ends))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_yticks([0, 0.5, 1])
            for start, stop in unseen:
                axes.axvspan(start, stop, color=theme.muted, alpha=0.15, linewidth=0)
            for part in uncovered:
                axes.axvspan(
                    part.start, part.stop, fill=False, hatch="//", edgecolor=theme.grid, linewidth=0
                )
            for part in alone:
                for edge in (part.start, part.stop):
                    axes.axvline(edge, color=theme.muted, linewidth=0.8, linestyle=":")
        for part in (*alone, *uncovered):
            # Above the axes, where no line runs.
            words = {"ha": "center", "va": "bottom", "size": 8, "color": theme.muted}
            middle = (part.start + part.stop) / 2
            where = {"xycoords": top.get_xaxis_transform(), "textcoords": "offset points"}
            top.annotate(part.words, (middle, 1), (0, 3), **where, **words)
        lengths = spans[:, 1] - spans[:, 0]
        note = f"seconds (middle of a window of {lengths.max():.2f} s"
        note += "; less where there is less)" if np.ptp(lengths) > 0.01 else ")"
        grid[-1].set_xlabel(note + ("; shaded: no face found" if unseen else ""))
        grid[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def _best(axes, spans, probabilities, classes, whole) -> None:
    """Draws a strip of the predicted classes, each stretch of one class with its name."""
    best = probabilities.argmax(axis=1)
    changes = np.flatnonzero(np.diff(best)) + 1
    middles = spans.mean(axis=1)
    edges = [spans[0, 0], *(middles[changes - 1] + middles[changes]) / 2, spans[-1, 1]]
    for place, (start, stop) in enumerate(itertools.pairwise(edges)):
        chosen = best[0 if place == 0 else changes[place - 1]]
        color = COLORS[chosen % len(COLORS)]
        axes.axvspan(start, stop, color=color, linewidth=0)
        inches = (stop - start) / whole * 0.8 * _WIDTH
        # A name that does not fit would run into its neighbours.
        if 0.09 * len(classes[chosen]) < inches:
            middle = (start + stop) / 2
            words = {"ha": "center", "va": "center", "size": 8, "weight": "bold"}
            axes.text(middle, 0.45, classes[chosen], color=_letters_on(color), **words)


def _bare(axes) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _letters_on(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#10141c" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def _lines(axes, centres, values, classes, width, pieces):
    for place, name in enumerate(classes):
        for piece in pieces:
            axes.plot(
                centres[piece],
                values[piece, place],
                color=COLORS[place % len(COLORS)],
                # 7 colours and 4 dashes: 28 pairs.
                linestyle=_DASHES[place % len(_DASHES)],
                linewidth=width,
                # A line through one point would be invisible.
                marker="o" if len(centres[piece]) < 2 else None,
                label=name if piece is pieces[0] else None,
                clip_on=False,
            )


def _line_ends(axes, places, values, classes, theme) -> None:
    """Draws the classes' names beside the ends of their lines, apart where these lie close.

    `places` are where the lines end, in seconds, and the names begin, in shares of the width.
    """
    if len(classes) > _MOST_ENDS:
        return
    order = np.argsort(values)
    # Shares of the axes' height; names too close push each other up, and from the top down again.
    heights = np.asarray(values, np.float64)[order]
    for place in range(1, len(order)):
        heights[place] = max(heights[place], heights[place - 1] + _END_STEP)
    top = 1.0
    for place in reversed(range(len(order))):
        top = heights[place] = min(heights[place], top)
        top -= _END_STEP
    for place, height in zip(order, heights, strict=True):
        name, color = classes[place], COLORS[place % len(COLORS)]
        axes.annotate(
            name if len(name) <= _LONGEST_END else name[: _LONGEST_END - 1] + "\u2026",
            (places[0], values[place]),
            xytext=(places[1], height),
            textcoords=axes.transAxes,
            size=8,
            va="center",
            color=color,
            annotation_clip=False,
            bbox={"color": theme.background, "pad": 1},
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.5,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )
