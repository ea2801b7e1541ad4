"""Results pages: Markdown from a template, figures and tables of numbers in a folder beside it."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from aver_jax.experiments.stats.predictions import LEAST_ACTORS, MARGIN
from aver_jax.runtime.atomic_files import csv_text, write_whole
from data_prep.wording import counted

# Resampling fewer seeds than this shows little of what another one would change.
_FEW_SEEDS = 3
_DECIDED = {True: "yes", False: "no", None: "undecided"}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text; its first column is aligned left, the others right.

    Attributes:
      head: the columns' names.
      rows: of as many cells each.

    Raises:
      ValueError: a row of another length than the head.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"a row of {len(row)} cells under {len(self.head)} columns: {row}")


@dataclasses.dataclass(frozen=True)
class Page:
    """A page that `write` puts at any place.

    Attributes:
      template: a file of `templates`, which calls `table`, `figure` and `numbers`.
      context: what it prints.
      figures: name -> PNG.
      numbers: name -> rows of a CSV file.
    """

    template: str
    context: Mapping[str, Any]
    figures: Mapping[str, bytes]
    numbers: Mapping[str, Sequence[Sequence[object]]]

    def text(self, folder: str) -> str:
        """Returns the page as Markdown; its files lie in `folder`."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("aver_jax.experiments.pages"),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "counted": lambda count, word: counted(count, word),
            "decided": _DECIDED.__getitem__,
            "points": points,
            "points_span": lambda interval: points_span(*interval),
        }
        environment.globals |= {
            "few_seeds": _FEW_SEEDS,
            "least_actors": LEAST_ACTORS,
            "margin": f"{100 * MARGIN:g}",
            "table": _markdown,
            "figure": lambda name, caption: f"![{caption}]({folder}/{name}.png)\n\n*{caption}*",
            "numbers": lambda name, of="every training": (
                f"The numbers of {of}: [{name}.csv]({folder}/{name}.csv)."
            ),
        }
        text = environment.get_template(self.template).render(self.context)
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

    def write(self, path: Path) -> None:
        """Writes the page and, in a folder of its name without the ending, its files."""
        folder = path.with_suffix("")
        for name, png in self.figures.items():
            write_whole(folder / f"{name}.png", png)
        for name, rows in self.numbers.items():
            write_whole(folder / f"{name}.csv", csv_text(rows))
        write_whole(path, self.text(folder.name))


def _markdown(caption: str, table: Table) -> str:
    """Returns a table under its caption; "" without rows."""
    if not table.rows:
        return ""
    lines = [table.head, [":--", *["--:"] * (len(table.head) - 1)], *table.rows]
    return "\n".join([f"**{caption}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def percent(value: float | None) -> str:
    """Returns a share as text: "81.3%", "-" where unknown."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def printed(value: float | None) -> str:
    """Returns a published share with the digits it was published with: "76.84%"."""
    return "-" if value is None else f"{round(100 * value, 2):g}%"


def mean_and_std(mean: float, std: float) -> str:
    """Returns two shares as text: "81.3 ± 2.0%"; without a std the mean alone."""
    if math.isnan(mean) or math.isnan(std):
        return percent(mean)
    return f"{100 * mean:.1f} ± {100 * std:.1f}%"


def span(low: float, high: float) -> str:
    """Returns an interval of shares as text: "[79.0, 83.5]", "-" where unknown."""
    return "-" if math.isnan(low) or math.isnan(high) else f"[{100 * low:.1f}, {100 * high:.1f}]"


def points(value: float) -> str:
    """Returns a difference of shares in percentage points: "+2.1"."""
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"


def points_span(low: float, high: float) -> str:
    """Returns an interval of differences in percentage points: "[-0.3, +4.1]"."""
    return "-" if math.isnan(low) or math.isnan(high) else f"[{points(low)}, {points(high)}]"
