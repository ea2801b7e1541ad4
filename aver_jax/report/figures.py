"""Figures of a run: confusion, reliability, training curves, class probabilities.

Every function returns a matplotlib `Figure` that no global state knows of; `png` and `svg` turn
it into bytes. Colours are of Okabe and Ito's colour-blind-safe set, and nothing is told by colour
alone.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

PNG_DPI = 160


@dataclass(frozen=True)
class Theme:
    """Colours of a figure: text, quieter text, lines, two series, an accent, a heat ramp."""

    text: str
    muted: str
    grid: str
    first: str
    second: str
    accent: str
    ramp: tuple[str, str, str]
    background: str


LIGHT = Theme(
    text="#1b2130",
    muted="#667085",
    grid="#e4e7ec",
    first="#0072b2",
    second="#d55e00",
    accent="#009e73",
    ramp=("#f3f7fb", "#5fa3d0", "#073b66"),
    background="#ffffff",
)
DARK = Theme(
    text="#e8ebf2",
    muted="#98a2b3",
    grid="#2d3442",
    first="#56b4e9",
    second="#e69f00",
    accent="#2fc898",
    ramp=("#1d2330", "#2f7bb0", "#b9e3ff"),
    background="#151922",
)


def png(figure: Figure, dpi: int = PNG_DPI) -> bytes:
    """Returns the figure as a PNG file's bytes, on its theme's background."""
    return _encoded(figure, "png", dpi=dpi)


def svg(figure: Figure) -> bytes:
    """Returns the figure as an SVG file's bytes, without background, the same bytes every time."""
    return _encoded(figure, "svg", metadata={"Date": None}, transparent=True)


def confusion(results: Mapping[str, Any], theme: Theme = LIGHT) -> Figure:
    """Draws the confusion matrix: the share of the row as colour and number, clips below it.

    Args:
      results: with `confusion` (counts [C][C], rows true) and `classes`.
      theme: LIGHT or DARK.
    """
    counts, classes = np.asarray(results["confusion"]), list(results["classes"])
    total = counts.sum(1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    size = len(classes)
    with themed(theme):
        figure = new_figure(1.9 + 0.72 * size, 1.4 + 0.66 * size)
        axes = figure.add_subplot()
        ramp = LinearSegmentedColormap.from_list("recall", theme.ramp)
        axes.imshow(share, cmap=ramp, vmin=0, vmax=1, aspect="auto")
        for row in range(size):
            for column in range(size):
                _cell(axes, row, column, counts[row, column], share[row, column], ramp)
        axes.set_xticks(range(size), classes, rotation=45 if _long(classes) else 0)
        names = [f"{name}  ({n})" for name, n in zip(classes, total[:, 0], strict=True)]
        axes.set_yticks(range(size), names)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class (clips)")
        # White gaps between the cells instead of a frame.
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=theme.background, linewidth=2)
        axes.grid(which="major", visible=False)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
    return figure


def reliability(results: Mapping[str, Any], theme: Theme = LIGHT) -> Figure:
    """Draws accuracy against confidence, with the number of clips per bin.

    Args:
      results: with `calibration` and, optionally, `temperature` (`scores.calibration`).
      theme: LIGHT or DARK.
    """
    series = [("as trained", results["calibration"], theme.first)]
    if "temperature" in results:
        scaled = results["temperature"]
        series.append((f"temperature {scaled['value']:.2f}", scaled, theme.second))
    with themed(theme):
        figure = new_figure(4.6, 4.8)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        for place, (name, calibration, color) in enumerate(series):
            bins = {k: np.array(v, float) for k, v in calibration["bins"].items()}
            known = bins["count"] > 0
            error = calibration["ece"]
            label = f"{name}: ECE {100 * error:.1f}%" if error is not None else name
            x, y, n = (bins[k][known] for k in ("confidence", "accuracy", "count"))
            upper.plot(x, y, color=color, linewidth=1, alpha=0.5)
            # The area says how many clips a point stands for: a bin of one clip means little.
            area = 12 + 160 * n / max(n.sum(), 1)
            upper.scatter(x, y, area, color=color, marker="os"[place], label=label, zorder=3)
            width = np.diff(bins["edges"]) / len(series)
            left = bins["edges"][:-1] + place * width
            lower.bar(left, bins["count"], width * 0.9, align="edge", color=color)
        upper.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy")
        upper.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), handletextpad=0.2)
        lower.set(xlabel="confidence of the predicted class", ylabel="clips")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        for axis in (upper.xaxis, upper.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def branches(results: Mapping[str, Any], theme: Theme = LIGHT) -> Figure:
    """Returns what each branch of a fusion model achieves alone, and their fusion: WAR and UAR.

    Bars with 95% intervals; the dashed line is guessing.

    Args:
      results: with `metrics`, `branches` (`scores.score_clips`) and `classes`.
      theme: LIGHT or DARK.
    """
    scores_of = {**results["branches"], "fused": results["metrics"]}
    places, width = np.arange(len(scores_of)), 0.38
    series = (("war", "WAR", theme.first), ("uar", "UAR", theme.second))
    with themed(theme):
        figure = new_figure(1.6 + 1.3 * len(scores_of), 3.1)
        axes = figure.add_subplot()
        for number, (score, label, color) in enumerate(series):
            left = places + (number - 0.5) * width
            found = np.array(
                [
                    [entry[score][k] for k in ("value", "low", "high")]
                    for entry in scores_of.values()
                ],
                float,
            )
            value, low, high = found.T
            axes.bar(left, value, width * 0.92, color=color, label=label, hatch=("", "//")[number],
                     edgecolor=theme.background, linewidth=0)  # fmt: skip
            axes.errorbar(left, value, (value - low, high - value), fmt="none", capsize=3,
                          ecolor=theme.text, elinewidth=1)  # fmt: skip
        chance = 1 / len(results["classes"])
        dashes = {"color": theme.muted, "linewidth": 1, "linestyle": (0, (4, 3))}
        axes.axhline(chance, label="guessing", zorder=3, **dashes)
        axes.set_xticks(places, list(scores_of))
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3)
    return figure


def training_curves(records: Sequence[Mapping[str, float]], theme: Theme = LIGHT) -> Figure:
    """Returns the loss, accuracy and learning rate over the epochs.

    Args:
      records: lines of metrics.jsonl: `epoch` (or `step`) and any of train/loss, train/war,
        validation/loss, validation/war, validation/uar, validation/war_BRANCH, learning_rate.
        Where training adds losses of branches, train/loss_fused is drawn: it is what
        validation/loss compares with.
      theme: LIGHT or DARK.
    """
    along = "epoch" if any("epoch" in record for record in records) else "step"
    fused = any("train/loss_fused" in record for record in records)

    def draw(axes, name, label, color, **style):
        points = [(r[along], r[name]) for r in records if name in r and along in r]
        if points:
            # A line through one point would be invisible.
            style = {"marker": "o"} | style if len(points) == 1 else style
            axes.plot(*zip(*points, strict=True), color=color, label=label, **style)

    with themed(theme):
        figure = new_figure(10.2, 2.9)
        loss, score, rate = figure.subplots(1, 3, width_ratios=(4, 4, 3))
        dots = {"marker": "o", "markersize": 3}
        thin = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
        draw(loss, "train/loss_fused" if fused else "train/loss", "training", theme.first)
        draw(loss, "validation/loss", "validation", theme.second, **dots)
        draw(score, "train/war", "training WAR", theme.first)
        draw(score, "validation/war", "validation WAR", theme.second, **dots)
        draw(score, "validation/uar", "validation UAR", theme.accent, **thin)
        for place, name in enumerate(_branch_scores(records)):
            label = f"validation WAR, {name.removeprefix(_BRANCH_SCORE)} alone"
            draw(score, name, label, theme.muted, linestyle=("-.", ":")[place % 2], linewidth=1.2)
        draw(rate, "learning_rate", None, theme.muted)
        loss.set_title("Loss")
        loss.set_ylim(bottom=0)
        score.set_title("Accuracy and mean recall")
        score.set_ylim(0, 1)
        score.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        rate.set_title("Learning rate")
        rate.set_ylim(bottom=0)
        rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for axes in (loss, score, rate):
            axes.set_xlabel(along)
            axes.margins(x=0.01)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        for axes in (loss, score):
            if axes.get_lines():
                axes.legend(loc="best")
    return figure


_BRANCH_SCORE = "validation/war_"


def _branch_scores(records):
    return sorted({name for r in records for name in r if name.startswith(_BRANCH_SCORE)})


def _cell(axes, row, column, count, share, ramp):
    if not count:
        return
    red, green, blue, _ = ramp(share)
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
    color = "#10141c" if light else "#ffffff"
    weight = "bold" if row == column else "normal"
    put = {"ha": "center", "color": color}
    axes.text(column, row - 0.06, f"{100 * share:.0f}%", va="center", weight=weight, **put)
    axes.text(column, row + 0.27, f"{count}", va="center", size=7, alpha=0.8, **put)


def _long(names):
    return max(map(len, names)) > 6


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of that many inches, which no global state knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextlib.contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Gives figures made inside the block this look."""
    style = {
        "figure.facecolor": theme.background,
        "axes.facecolor": "none",
        "axes.edgecolor": theme.grid,
        "axes.labelcolor": theme.muted,
        "axes.titlecolor": theme.text,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "text.color": theme.text,
        "xtick.color": theme.grid,
        "ytick.color": theme.grid,
        "xtick.labelcolor": theme.text,
        "ytick.labelcolor": theme.text,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "font.size": 9,
        "font.family": "DejaVu Sans",
    }
    with matplotlib.rc_context(style):
        yield


def _encoded(figure, kind, **options):
    buffer = io.BytesIO()
    # Ids in an SVG are random unless salted.
    with matplotlib.rc_context({"svg.hashsalt": "aver_jax", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
