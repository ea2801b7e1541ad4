"""The page of the faithfulness experiment: one table that ranks methods, and their curves."""

from collections.abc import Mapping, Sequence

import numpy as np

from aver_jax.experiments.pages import provenance
from aver_jax.experiments.pages.page import Page, Table
from aver_jax.experiments.pages.relevance import faithfulness_figures
from aver_jax.explanation.clip_bootstrap import mean_intervals
from aver_jax.explanation.metrics import curves, road
from aver_jax.explanation.tested import Tested
from aver_jax.report.figures import png

_DPI = 110
# Part of a measure's name -> whether more of it is better.
_HIGHER = {
    "deletion": False,
    "insertion": True,
    "comprehensiveness": True,
    "sufficiency": False,
    "ROAD gap": True,
}

#: Column of a part -> float [n].
Columns = Mapping[str, np.ndarray]


def build_page(
    tested: Tested,
    measured: Mapping[str, Columns],
    baselines: Sequence[str],
    target: str,
    command: str,
) -> Page:
    """Returns the page.

    Args:
      tested: the run and its clips.
      measured: method -> what was measured of every clip: "deleted BASELINE SHARE" and "kept
        BASELINE SHARE" (probabilities), "road ORDER SHARE" (right or not), "gini" and, of methods
        that have them, "sensitivity" and "ms".
      baselines: their names.
      target: whose class was explained.
      command: the whole command.
    """
    values = {m: _measures(columns, baselines) for m, columns in measured.items()}
    scores = {
        m: {name: [float(x) for x in mean_intervals(v)] for name, v in own.items()}
        for m, own in values.items()
    }
    ranks = _mean_ranks(scores)
    order = sorted(measured, key=ranks.__getitem__)
    context = {
        "data": provenance.tested_run(tested, target),
        "command": command,
        "baselines": list(baselines),
        "ranking": _ranking(order, ranks, scores, measured),
        "removal": _table(
            order, scores, [n for n in scores[order[0]] if " " in n and "ROAD" not in n]
        ),
        "road": _table(order, scores, ["ROAD MoRF", "ROAD LeRF", "ROAD gap"]),
        "maps": _table(order, scores, ["max-sensitivity", "Gini"]),
        "shares": ", ".join(f"{100 * s:g}" for s in curves.AOPC),
        "removed": ", ".join(f"{100 * s:g}" for s in road.SHARES),
    }
    figure = faithfulness_figures.curve_panels(measured, baselines)
    return Page(
        "faithfulness.md.jinja",
        context,
        {"curves": png(figure, _DPI)},
        {"measures": _rows(order, ranks, scores, measured)},
    )


def _measures(columns: Columns, baselines: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns every measure of every clip, float [n]."""
    found = {}
    for b in baselines:
        deleted, kept = (
            np.stack([columns[f"{kind} {b} {share:g}"] for share in curves.SHARES], 1)
            for kind in ("deleted", "kept")
        )
        found[f"deletion {b}"] = curves.area(deleted)
        found[f"insertion {b}"] = curves.area(kept)
        found[f"comprehensiveness {b}"] = curves.comprehensiveness(deleted)
        found[f"sufficiency {b}"] = curves.sufficiency(deleted, kept)
    most, least = (
        np.mean([columns[f"road {order} {share:g}"] for share in road.SHARES], 0)
        for order in ("most", "least")
    )
    found |= {"ROAD MoRF": most, "ROAD LeRF": least, "ROAD gap": least - most}
    if "sensitivity" in columns:
        found["max-sensitivity"] = columns["sensitivity"]
    return found | {"Gini": columns["gini"]}


def _mean_ranks(scores) -> dict[str, float]:
    """Returns every method's mean place over the measures that say what the model depends on."""
    methods = list(scores)
    places = dict.fromkeys(methods, 0.0)
    names = [n for n in scores[methods[0]] if _direction(n) is not None]
    for name in names:
        values = np.array([scores[m][name][0] for m in methods])
        values = -values if _direction(name) else values
        for method, value in zip(methods, values, strict=True):
            # Equal ones share their mean place.
            place = (values < value).sum() + ((values == value).sum() + 1) / 2
            places[method] += place / len(names)
    return places


def _direction(name: str) -> bool | None:
    return next((higher for part, higher in _HIGHER.items() if name.startswith(part)), None)


def _cell(scores, name: str) -> str:
    if name not in scores:
        return "-"
    mean, low, high = scores[name]
    return f"{mean:.3f}" if np.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _table(order, scores, names) -> Table:
    rows = [[m, *(_cell(scores[m], name) for name in names)] for m in order]
    return Table(["method", *names], rows)


def _ranking(order, ranks, scores, measured) -> Table:
    """Returns methods by mean rank, with the means of the ranked measures and ms a clip."""
    names = [n for n in scores[order[0]] if _direction(n) is not None]
    arrows = [f"{n} {'↑' if _direction(n) else '↓'}" for n in names]
    rows = []
    for method in order:
        means = [f"{scores[method][n][0]:.3f}" for n in names]
        rows.append([method, f"{ranks[method]:.1f}", *means, _ms(measured[method])])
    return Table(["method", "mean rank", *arrows, "ms a clip"], rows)


def _ms(columns: Columns) -> str:
    known = columns.get("ms", np.array([np.nan]))[0]
    return "-" if np.isnan(known) else f"{known:.1f}"


def _rows(order, ranks, scores, measured) -> list[list[object]]:
    """Returns a line for every method and measure, under a head."""
    rows: list[list[object]] = [["method", "measure", "value", "low", "high"]]
    for method in order:
        rows += [[method, name, *found] for name, found in scores[method].items()]
        rows.append([method, "mean rank", float(ranks[method]), None, None])
        if "ms" in measured[method]:
            rows.append([method, "ms a clip", float(measured[method]["ms"][0]), None, None])
    return rows
