"""The figure of a timeline: class probabilities over the seconds of a clip."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aver_jax.report.figures import LIGHT, Theme, new_figure, themed

# Okabe and Ito's set without its yellow, which vanishes on white; dashes tell further classes.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555b66")
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_BRANCHES = {"video": "video alone", "audio": "sound alone"}


def timeline_figure(
    spans,
    probabilities,
    classes: Sequence[str],
    branches: Mapping[str, np.ndarray],
    title: str,
    unseen: Sequence[tuple[float, float]] = (),
    theme: Theme = LIGHT,
) -> Figure:
    """Probabilities at the middle of each window, a line per class, named at its end.

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
    heights = [3.0] + [1.2] * len(branches)
    with themed(theme):
        figure = new_figure(9.6, 0.9 + sum(heights))
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[
            :, 0
        ]
        top = grid[0]
        top.set_title(title, pad=22)
        _lines(top, centres, probabilities, classes, 1.8)
        top.set_ylabel("probability")
        handles, names = top.get_legend_handles_labels()
        top.legend(
            handles,
            names,
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=min(len(classes), 8),
            borderpad=0,
            handlelength=1.6,
            columnspacing=1.4,
        )
        for axes, (name, opinions) in zip(grid[1:], branches.items(), strict=True):
            _lines(axes, centres, np.asarray(opinions), classes, 1.1)
            axes.set_ylabel(_BRANCHES[name])
        for axes in grid:
            axes.set_ylim(0, 1)
            axes.set_xlim(spans[0, 0], spans[-1, 1])
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_yticks([0, 0.5, 1])
            for start, stop in unseen:
                axes.axvspan(start, stop, color=theme.muted, alpha=0.15, linewidth=0)
        width = float(spans[0, 1] - spans[0, 0])
        note = f"seconds (middle of a window of {width:.2f} s)"
        grid[-1].set_xlabel(note + ("; shaded: no face found" if unseen else ""))
    return figure


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
