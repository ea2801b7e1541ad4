"""What the numbers of a page must not be quoted without: where they come from."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from aver_jax.experiments.outcomes import Failure, Outcome
from aver_jax.experiments.results import made_here
from data_prep.wording import counted


def provenance(outcomes: Sequence[Outcome], data: Mapping[str, str], command: str) -> str:
    """The facts of a page, as a list.

    Args:
      outcomes: of all cells.
      data: name -> fact of what was tested; stands first.
      command: what was run, without the folders of this machine.
    """
    hours = sum(o.seconds for o in outcomes) / 3600
    lines = {
        **data,
        "checkpoint": f"the best by {_listed(_selects(outcomes))}; test clips choose nothing",
        "start": _start(outcomes),
        "seeds": _listed(sorted({o.cell.seed for o in outcomes})),
        "trainings": f"{len(outcomes)}; training time, summed over cells: {hours:.2f} h (what ran "
        "before a stop is not counted)",
        **_made(outcomes),
        "command": f"`{command}`",
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def missing(failures: Sequence[Failure]) -> str:
    """The cells that failed, and why; "" without."""
    if not failures:
        return ""
    head = (
        f"Missing cells: {counted(len(failures), 'training')} failed. Scores of a network are of "
        "the cells it has; differences of the cells both have."
    )
    lines = [f"- {cell.name}: {without_folders(reason)}" for cell, reason in failures]
    return "\n".join([head, "", *lines])


def without_folders(text: str) -> str:
    """A line with the folders of its absolute paths left out: "/a/b/c.json" is "c.json"."""
    return re.sub(r"(?<![\w.])~?/(?:[^\s/:;,)]+/)*(?=[^\s/])", "", text)


def skipped_of(data: Path) -> int:
    """Number of media files that `aver prepare` skipped; 0 without its list."""
    table = data / "skipped.csv"
    return max(0, len(table.read_text().splitlines()) - 1) if table.exists() else 0


def _selects(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted({o.config["evaluation"]["select"] for o in outcomes})


def _start(outcomes: Sequence[Outcome]) -> str:
    """Where the trainings began; late fusion begins at the branches of this page."""
    parts = {
        subtree: Path(folder).name
        for o in outcomes
        if o.cell.network != "late"
        for subtree, folder in o.config.get("init", {}).items()
        if folder
    }
    started = "; ".join(f"{subtree} of {name}" for subtree, name in sorted(parts.items()))
    return (
        f"from earlier runs: {started}; the rest from random weights"
        if parts
        else ("random weights")
    )


def _made(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Distinct versions, devices and dates; those of now where a cell does not tell."""
    here = made_here()
    stored = [o.made for o in outcomes if o.made]
    found = {
        name: "; ".join(sorted({made[name] for made in stored} or {here[name]})) for name in here
    }
    unknown = sum(not o.made for o in outcomes)
    if unknown:
        theirs = "those above are of the others" if stored else "those above are of this page"
        found["not stored"] = f"these three by {counted(unknown, 'training')}; {theirs}"
    return found


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
