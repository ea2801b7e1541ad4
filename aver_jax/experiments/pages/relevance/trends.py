"""The page of the trends experiment: mean maps of every emotion, and its relevance per frame."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.colors import ListedColormap

from aver_jax.experiments.pages import provenance
from aver_jax.experiments.pages.page import Page, Table, percent, span
from aver_jax.explanation.clip_bootstrap import mean_intervals
from aver_jax.explanation.tested import Tested
from aver_jax.report.figures import LIGHT, Figure, new_figure, png, themed
from aver_jax.report.overlay import heat_colors
from aver_jax.report.timeline import COLORS

_DPI = 100
_MARKS = "osD^vP*X"


class Trend(NamedTuple):
    """A method's maps, float32 [n,T,h,w], each scaled to 0..1; predicted: int32 [n]."""

    maps: np.ndarray
    predicted: np.ndarray


def build_page(tested: Tested, trends: Mapping[str, Trend], command: str) -> Page:
    """Returns the page.

    Args:
      tested: the run and its clips.
      trends: method -> its maps.
      command: the whole command.
    """
    classes = list(tested.run.classes)
    figures, rows, frames_rows, map_rows = {}, [], [], []
    counts: list[str] = []
    for method, trend in trends.items():
        groups = correct_groups(trend.predicted, tested.labels, len(classes))
        means, bars = {}, {}
        for index, clips in groups.items():
            maps = trend.maps[clips]
            means[classes[index]] = maps.mean(0)
            bars[classes[index]] = mean_intervals(maps.mean(axis=(2, 3)))
        counts = [f"{name} {len(groups.get(i, ()))}" for i, name in enumerate(classes)]
        figures[f"maps_{method}"] = png(maps_figure(means), _DPI)
        figures[f"frames_{method}"] = png(frames_figure(bars), _DPI)
        for name, (mean, low, high) in bars.items():
            peak = int(mean.argmax())
            shown = f"frame {peak + 1}: {percent(mean[peak])} {span(low[peak], high[peak])}"
            rows.append([method, name, percent(float(mean.mean())), shown])
            frames_rows += [
                [method, name, t + 1, *map(float, values)]
                for t, values in enumerate(zip(mean, low, high, strict=True))
            ]
            map_rows += [
                [method, name, t + 1, y, x, f"{means[name][t, y, x]:.5f}"]
                for t, y, x in np.ndindex(means[name].shape)
            ]
    context = {
        "data": provenance.tested_run(tested, "predicted"),
        "command": command,
        "methods": list(trends),
        "correct": ", ".join(counts),
        "rows": Table(["method", "emotion", "mean intensity", "strongest frame"], rows),
    }
    numbers = {
        "frames": [["method", "emotion", "frame", "intensity", "low", "high"], *frames_rows],
        "maps": [["method", "emotion", "frame", "y", "x", "relevance"], *map_rows],
    }
    return Page("trends.md.jinja", context, figures, numbers)


def correct_groups(predicted, labels, num_classes: int) -> dict[int, np.ndarray]:
    """Returns class -> places of its correctly classified clips; classes without one are absent."""
    right = np.asarray(predicted) == np.asarray(labels)
    found = {c: np.flatnonzero(right & (labels == c)) for c in range(num_classes)}
    return {c: clips for c, clips in found.items() if len(clips)}


def maps_figure(means: Mapping[str, np.ndarray]) -> Figure:
    """Draws mean maps [T,h,w] of emotions: a row each, frames in columns, one scale for all."""
    frames = len(next(iter(means.values())))
    highest = max(float(maps.max()) for maps in means.values())
    colors = ListedColormap(heat_colors(np.linspace(0, 1, 256)) / 255)
    with themed(LIGHT):
        figure = new_figure(1.2 + 1.05 * frames, 0.6 + 1.1 * len(means))
        figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
        axes = figure.subplots(len(means), frames, squeeze=False)
        image = None
        for place, (name, maps) in enumerate(means.items()):
            row = axes[place]
            for number, (axis, heat) in enumerate(zip(row, maps, strict=True), 1):
                image = axis.imshow(heat, cmap=colors, vmin=0, vmax=highest or 1)
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
                axis.spines[:].set_visible(False)
                if place == 0:
                    axis.set_title(f"frame {number}", fontsize=9)
            row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        figure.colorbar(image, ax=axes, shrink=0.6, label="mean relevance")
    return figure


def frames_figure(bars: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Draws the mean intensity of every frame with 95% intervals, a line per emotion.

    Args:
      bars: emotion -> mean, low, high, float [T].
    """
    with themed(LIGHT):
        figure = new_figure(8.4, 3.6)
        axes = figure.add_subplot()
        for place, (name, (mean, low, high)) in enumerate(bars.items()):
            # Side by side, so that bars do not hide each other.
            x = 1 + np.arange(len(mean)) + 0.06 * (place - (len(bars) - 1) / 2)
            # Of one clip there is no interval.
            ends = np.nan_to_num(np.stack([mean - low, high - mean]))
            axes.errorbar(
                x, mean, np.maximum(ends, 0), label=name, color=COLORS[place % len(COLORS)],
                marker=_MARKS[place % len(_MARKS)], capsize=2, elinewidth=1, linewidth=1.3,
            )  # fmt: skip
        axes.set(xlabel="frame", ylabel="mean relevance of a patch")
        axes.set_xticks(1 + np.arange(len(mean)))
        axes.set_ylim(bottom=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
