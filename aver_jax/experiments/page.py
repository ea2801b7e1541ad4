"""A results page: Markdown, with its figures and tables of numbers in a folder beside it."""

import math
from collections.abc import Sequence
from pathlib import Path

from aver_jax.runtime.atomic_files import csv_text, write_whole


class Page:
    """Collects the parts of a page in order; `write` puts it at any place."""

    def __init__(self, title: str):
        self._parts = [f"# {title}"]
        self._files: dict[str, bytes | str] = {}

    def section(self, title: str) -> None:
        """Begins a section."""
        self._parts.append(f"## {title}")

    def text(self, text: str) -> None:
        """Adds a paragraph."""
        self._parts.append(text)

    def table(self, caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Adds a table; its first column is text, the others are numbers. Empty ones are left out.

        Raises:
          ValueError: a row of another length than the head.
        """
        if not rows:
            return
        for row in rows:
            if len(row) != len(head):
                raise ValueError(f"a row of {len(row)} cells under {len(head)} columns: {row}")
        lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
        self._parts += [f"**{caption}**", "\n".join(f"| {' | '.join(line)} |" for line in lines)]

    def figure(self, name: str, png: bytes, caption: str) -> None:
        """Adds a picture, `FOLDER/name.png`."""
        self._files[f"{name}.png"] = png
        self._parts += [f"![{caption}]({{folder}}/{name}.png)", f"*{caption}*"]

    def numbers(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Adds a table for programs, `FOLDER/name.csv`, and a link to it."""
        self._files[f"{name}.csv"] = csv_text(rows)
        self._parts.append(f"The numbers of every training: [{name}.csv]({{folder}}/{name}.csv).")

    def write(self, path: Path) -> None:
        """Writes the page and, in a folder of its name without the ending, its files."""
        folder = path.with_suffix("")
        for name, content in self._files.items():
            write_whole(folder / name, content)
        parts = [part.replace("{folder}", folder.name) for part in self._parts]
        write_whole(path, "\n\n".join(parts) + "\n")


def percent(value: float | None) -> str:
    """A share as text: "81.3%", "-" where unknown."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def printed(value: float | None) -> str:
    """A published share as text, with the digits it was published with: "76.84%"."""
    return "-" if value is None else f"{round(100 * value, 2):g}%"


def mean_and_deviation(mean: float, deviation: float) -> str:
    """Two shares as text: "81.3 ± 2.0%"; without a deviation the mean alone."""
    if math.isnan(mean) or math.isnan(deviation):
        return percent(mean)
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}%"


def span(low: float, high: float) -> str:
    """An interval of shares as text: "[79.0, 83.5]", "-" where unknown."""
    return "-" if math.isnan(low) or math.isnan(high) else f"[{100 * low:.1f}, {100 * high:.1f}]"


def points(value: float) -> str:
    """A difference of shares in percentage points: "+2.1"."""
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"


def points_span(low: float, high: float) -> str:
    """An interval of differences in percentage points: "[-0.3, +4.1]"."""
    return "-" if math.isnan(low) or math.isnan(high) else f"[{points(low)}, {points(high)}]"
