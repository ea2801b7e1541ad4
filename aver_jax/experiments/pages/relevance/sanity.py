"""The page of sanity checks: how alike maps stay when they should change."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from aver_jax.experiments.pages.figures import COLORS, DASHES, MARKS
from aver_jax.experiments.pages.page import Page, Table
from aver_jax.report.figures import LIGHT, new_figure, png, themed

ANOTHER_CLASS, PERMUTED_LABELS = "another class", "permuted labels"
#: A method passes if its maps correlate less than this, the whole interval of the mean.
RANDOM, CLASS = 0.5, 0.9

_Results = Mapping[str, Mapping[str, Any]]


def build_page(results: _Results, dataset: str, clips: int, actors: int, command: str) -> Page:
    """Returns the page; `results`: method -> check -> as `relevance.sanity` stores them."""
    checks = list(next(iter(results.values())))
    parts = [name for name in checks if name not in (ANOTHER_CLASS, PERMUTED_LABELS)]
    context = {
        "command": command,
        "dataset": dataset,
        "clips": clips,
        "actors": actors,
        "random": RANDOM,
        "of_class": CLASS,
        "parts": parts,
        "verdicts": _verdicts(results, parts),
        "signed": _table(results, checks, "signed"),
        "absolute": _table(results, checks, "absolute"),
    }
    figures = {"cascade": png(_cascade(results, parts))}
    return Page("sanity.md.jinja", context, figures, {"sanity": _rows(results)})


def _passes(found: Mapping[str, Any], kind: str, most: float) -> str:
    value, _, high = found[kind]
    if value is None:
        return "no maps"
    return "passes" if (value if high is None else high) < most else "fails"


def _verdicts(results: _Results, parts: list[str]) -> Table:
    head = ["method", "head randomised: correlation", "all randomised", "another class"]
    rows = [
        [
            method,
            _number(found[parts[0]]["signed"]),
            _passes(found[parts[-1]], "absolute", RANDOM),
            _passes(found[ANOTHER_CLASS], "signed", CLASS),
        ]
        for method, found in results.items()
    ]
    return Table(head, rows)


def _number(three: list[float | None]) -> str:
    value, low, high = three
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def _table(results: _Results, checks: list[str], kind: str) -> Table:
    rows = [[m, *(_number(found[c][kind]) for c in checks)] for m, found in results.items()]
    return Table(["method", *checks], rows)


def _cascade(results: _Results, parts: list[str]) -> Figure:
    with themed(LIGHT):
        figure = new_figure(7.6, 4.2)
        axes = figure.add_subplot()
        for number, (method, found) in enumerate(results.items()):
            known = [(i + 1, found[p]["signed"][0]) for i, p in enumerate(parts)]
            places = [0, *(x for x, value in known if value is not None)]
            values = [1.0, *(value for _, value in known if value is not None)]
            axes.plot(
                places, values, color=COLORS[number % len(COLORS)],
                marker=MARKS[number % len(MARKS)], markersize=4,
                linestyle=DASHES[number // len(COLORS) % len(DASHES)], label=method,
            )  # fmt: skip
        axes.axhline(RANDOM, color=LIGHT.muted, linewidth=1, linestyle=":")
        axes.set_xticks(range(len(parts) + 1), ["trained", *parts])
        axes.set_xlabel("randomised, with all to the left of it")
        axes.set_ylabel("Spearman's correlation with the trained model's map")
        figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _rows(results: _Results) -> list[list[object]]:
    rows: list[list[object]] = [["method", "check", "kind", "correlation", "low", "high", "clips"]]
    for method, found in results.items():
        for check, own in found.items():
            rows += [[method, check, k, *own[k], own["clips"]] for k in ("signed", "absolute")]
    return rows
