"""The plots of a benchmark: clips/s against the roofline bound, ratios, and sweeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from aver_jax.bench.runner import OURS
from aver_jax.report.figures import LIGHT, new_figure, themed

# Of Okabe and Ito; an implementation has its own marker as well.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")
_MARKS = ("o", "s", "^", "D", "v")


def benchmark_figure(results: Mapping[str, Any]) -> Figure | None:
    """Returns a figure of clips/s with the roofline bound, and how many times faster aver_jax is.

    None if nothing was timed.
    """
    records = [
        r for r in results["cases"] if any("seconds" in side for side in r["sides"].values())
    ]
    if not records:
        return None
    names = list(dict.fromkeys(name for r in records for name in r["sides"]))
    looks = {name: (_COLORS[i % 5], _MARKS[i % 5]) for i, name in enumerate(names)}
    compared = [name for name in names if any(name in r["ratios"] for r in records)]
    with themed(LIGHT):
        figure = new_figure(11 if compared else 8, 1.4 + 0.46 * len(records))
        grid = figure.subplots(1, 2 if compared else 1, squeeze=False, sharey=True)[0]
        _rates(grid[0], records, looks)
        if compared:
            _ratios(grid[1], records, compared, looks)
        grid[0].set_yticks(range(len(records)), [r["case"]["name"] for r in records])
        # The first case on top.
        grid[0].set_ylim(len(records) - 0.4, -0.6)
        handles, labels = grid[0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        figure.legend(
            named.values(), named.keys(), loc="outside upper center", ncols=min(5, len(named))
        )
    return figure


def _offsets(count: int) -> list[float]:
    """Returns vertical offsets of that many markers within a row."""
    return [0.68 / count * (i - (count - 1) / 2) for i in range(count)]


def _rates(axes: Axes, records: Sequence[Any], looks: Mapping[str, Any]) -> None:
    for place, record in enumerate(records):
        bound = record["floor"]
        if bound:
            axes.plot(
                [record["case"]["batch_size"] / bound["seconds"]] * 2,
                [place - 0.4, place + 0.4],
                color=LIGHT.text, linewidth=2.2, label="roofline bound",
            )  # fmt: skip
        for offset, (name, (color, mark)) in zip(_offsets(len(looks)), looks.items(), strict=True):
            if "seconds" in record["sides"].get(name, {}):
                rate = record["sides"][name]["clips_per_s"]
                axes.plot(rate, place + offset, mark, color=color, markersize=6, label=name)
    axes.set_xscale("log")
    _plain_numbers(axes)
    axes.set_title("clips per second")
    axes.grid(visible=False, axis="y")


def _ratios(
    axes: Axes,
    records: Sequence[Any],
    compared: Sequence[str],
    looks: Mapping[str, Any],
) -> None:
    axes.axvline(1, color=LIGHT.muted, linewidth=1.2)
    for place, record in enumerate(records):
        for offset, name in zip(_offsets(len(compared)), compared, strict=True):
            if name in record["ratios"]:
                color, mark = looks[name]
                ratio = record["ratios"][name]
                axes.plot(
                    [ratio["low"], ratio["high"]], [place + offset] * 2, color=color, linewidth=2
                )
                axes.plot(ratio["median"], place + offset, mark, color=color, markersize=6)
                axes.annotate(
                    f"{ratio['median']:.3g}", (ratio["high"], place + offset),
                    xytext=(6, 0), textcoords="offset points", va="center", size=7.5,
                    color=LIGHT.text,
                )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.14)
    _plain_numbers(axes)
    axes.set_title("aver_jax faster, times (bars: quartiles)")
    axes.grid(visible=False, axis="y")


def _plain_numbers(axes: Axes) -> None:
    low, high = axes.get_xlim()
    # Over many decades the labels between would overlap.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def sweeps_figure(sweeps: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Returns a figure with a panel per sweep: clips/s, or seconds to compile against depth.

    None if no sweep has a timed point.
    """
    sweeps = [sweep for sweep in sweeps if any("seconds" in p for p in sweep["points"])]
    if not sweeps:
        return None
    with themed(LIGHT):
        figure = new_figure(3.6 * len(sweeps), 3.3)
        for axes, sweep in zip(
            figure.subplots(1, len(sweeps), squeeze=False)[0], sweeps, strict=True
        ):
            (_depth if sweep["sweep"] == "depth" else _growth)(axes, sweep)
            axes.set_title(sweep["title"])
            axes.set_xlabel(sweep["grows"])
            values = sorted({point["value"] for point in sweep["points"]})
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.xaxis.set_minor_formatter(NullFormatter())
            # From zero, with room above the highest marker.
            axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    return figure


def _growth(axes: Axes, sweep: Mapping[str, Any]) -> None:
    points = [point for point in sweep["points"] if "seconds" in point]
    values, rates = ([point[key] for point in points] for key in ("value", "clips_per_s"))
    axes.plot(values, rates, "-" + _MARKS[0], color=_COLORS[0], label=OURS)
    axes.set_xscale("log")
    axes.set_ylabel("clips/s")


def _depth(axes: Axes, sweep: Mapping[str, Any]) -> None:
    for look, way in enumerate(dict.fromkeys(point["way"] for point in sweep["points"])):
        points = [p for p in sweep["points"] if p["way"] == way and "seconds" in p]
        axes.plot(
            [point["value"] for point in points],
            [point["startup_seconds"] for point in points],
            ("-", "--")[look % 2] + _MARKS[look % 5],
            color=_COLORS[look % 5],
            label=way,
        )
    axes.set_ylabel("seconds to compile")
    axes.legend()
