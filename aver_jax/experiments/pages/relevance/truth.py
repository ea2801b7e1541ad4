"""The page of relevance against known truth: scores of methods, and pictures to check them by."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from aver_jax.experiments.pages.page import Page, Table, percent, span
from aver_jax.explanation.clip_maps import CONTROLS
from aver_jax.explanation.known_regions import LEAST_COVER
from aver_jax.report.figures import LIGHT, new_figure, png, themed

#: Share of clips in the pointing game from which on a method is said to find a region.
FINDS = 0.9
_SCORES = {"pointing": "pointing game", "mass": "relevance mass", "auc": "area under ROC"}


class Examples(NamedTuple):
    """One clip of a corpus: names [M], maps [M,T,h,w], frames uint8 [T,H,W,3], boxes [T,4] as
    shares of the picture (none where the truth is a time), inside [T,h,w] or [T]."""

    names: np.ndarray
    maps: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    inside: np.ndarray


def build_page(
    results: Mapping[str, Mapping[str, Any]], examples: Mapping[str, Examples], command: str
) -> Page:
    """Returns the page; `results` by corpus, as `experiments.relevance.truth` stores them."""
    figures = {"scores": png(_scores(results))}
    figures |= {f"example_{name}": png(_example(own)) for name, own in examples.items()}
    corpora = [
        {
            "name": name,
            "where": own["where"],
            "right": f"{own['right']} of {own['test_clips']} test clips, {own['actors']} actors",
            "area": percent(own["area"]),
            "table": _table(own),
            "failing": [
                m for m, s in own["methods"].items()
                if m not in CONTROLS and _verdict(s, own["area"]) == "no"
            ],
        }
        for name, own in results.items()
    ]  # fmt: skip
    context = {
        "command": command,
        "corpora": corpora,
        "accuracy": _accuracy(results),
        "finds": percent(FINDS),
        "cover": percent(LEAST_COVER),
    }
    return Page("truth.md.jinja", context, figures, {"truth": _rows(results)})


def _verdict(scores: Mapping[str, Any], area: float) -> str:
    pointing = scores["pointing"]
    if pointing["value"] >= FINDS:
        return "yes"
    return "in part" if pointing["low"] > area else "no"


def _table(own: Mapping[str, Any]) -> Table:
    head = ["method", "finds it?"]
    for name in _SCORES.values():
        head += [name, "95%"]
    rows = []
    for method, scores in _ranked(own):
        verdict = "-" if method in CONTROLS else _verdict(scores, own["area"])
        row = [method, verdict]
        for name in _SCORES:
            row += [percent(scores[name]["value"]), span(scores[name]["low"], scores[name]["high"])]
        ms = scores["ms_per_clip"]
        rows.append([*row, "-" if ms is None else f"{ms:.1f}"])
    return Table([*head, "ms a clip"], rows)


def _ranked(own: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    def key(item):
        return item[0] in CONTROLS, -item[1]["pointing"]["value"], -item[1]["mass"]["value"]

    return sorted(own["methods"].items(), key=key)


def _accuracy(results: Mapping[str, Any]) -> Table:
    head = ["label in the", "as it is", "without it", "it alone"]
    rows = [[own["where"], *map(percent, own["accuracy"].values())] for own in results.values()]
    return Table(head, rows)


def _rows(results: Mapping[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = [
        ["corpus", "method", "score", "value", "low", "high", "area", "clips", "ms_per_clip"]
    ]
    for name, own in results.items():
        for method, scores in own["methods"].items():
            for score in _SCORES:
                found = [scores[score][end] for end in ("value", "low", "high")]
                rest = [own["area"], own["right"], scores["ms_per_clip"]]
                rows.append([name, method, score, *found, *rest])
    return rows


def _scores(results: Mapping[str, Any]) -> Figure:
    """Draws the pointing game: a panel per corpus, a line per method, the area as a dashed line."""
    most = max(len(own["methods"]) for own in results.values())
    with themed(LIGHT):
        figure = new_figure(0.6 + 2.9 * len(results), 0.9 + 0.24 * most)
        for axes, (name, own) in zip(
            figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
        ):
            ranked = _ranked(own)[::-1]
            for place, (method, scores) in enumerate(ranked):
                found = scores["pointing"]
                color = LIGHT.muted if method in CONTROLS else LIGHT.first
                axes.plot([found["low"], found["high"]], [place, place], color=color, linewidth=1.5)
                axes.plot(found["value"], place, "o", color=color, markersize=5)
            axes.axvline(own["area"], color=LIGHT.second, linestyle="--", linewidth=1)
            axes.axvline(FINDS, color=LIGHT.accent, linestyle=":", linewidth=1)
            axes.set_yticks(range(len(ranked)), [method for method, _ in ranked], size=7)
            axes.set_xlim(-0.03, 1.03)
            axes.set_title(f"{name}: {own['where']}")
        figure.supxlabel("pointing game, share of clips", size=9, color=LIGHT.muted)
    return figure


def _example(own: Examples) -> Figure:
    """Draws a clip's frames with the truth, and below them the maps of every method."""
    count = len(own.frames)
    with themed(LIGHT):
        figure = new_figure(1.5 + 0.85 * count, 0.95 * (1 + len(own.maps)))
        grid = figure.subplots(1 + len(own.maps), count, squeeze=False)
        for line, (name, values) in enumerate(
            [("frames", None), *zip(own.names, own.maps, strict=True)]
        ):
            for moment, axes in enumerate(grid[line]):
                axes.set_xticks([])
                axes.set_yticks([])
                axes.grid(visible=False)
                picture = own.frames[moment] if values is None else values[moment]
                scale = {} if values is None else {"vmin": 0, "vmax": max(values.max(), 1e-30)}
                axes.imshow(picture, cmap="cividis", extent=(0, 1, 1, 0), **scale)
                if len(own.boxes):
                    x0, y0, x1, y1 = own.boxes[moment]
                    size = (x1 - x0, y1 - y0)
                    axes.add_patch(Rectangle((x0, y0), *size, fill=False, edgecolor="#d55e00"))
                    axes.set_xlim(0, 1)
                    axes.set_ylim(1, 0)
                elif own.inside[moment]:
                    axes.spines[:].set(visible=True, color="#d55e00", linewidth=2)
            grid[line, 0].set_ylabel(str(name), rotation=0, ha="right", va="center", size=7)
    return figure
