"""What checks find: one JSON object a line, written as soon as it is known. Imports no jax."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PASSED, FAILED, NOT_HERE = "passed", "failed", "not here"


class Findings:
    """A file of findings.

    Attributes:
      failed: whether a check failed.
    """

    def __init__(self, file: Path) -> None:
        self._file, self.failed = file, False

    def add(self, check: str, outcome: str, seconds: float = 0.0, **more: Any) -> None:
        """Writes a finding and prints it."""
        self.failed |= outcome == FAILED
        row = {"check": check, "outcome": outcome, "seconds": seconds, **more}
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{check}: {outcome} {errors_text(row)}{row.get('note', '')}", flush=True)

    @contextlib.contextmanager
    def checking(self, check: str, tolerances: Mapping[str, float]) -> Iterator[dict[str, float]]:
        """Gives a dict to put errors into, and judges them; an exception is a failure as well.

        Args:
          check: its name.
          tolerances: of the errors, by name; none may be missing. Read at the end.
        """
        began, errors = time.monotonic(), {}
        try:
            yield errors
        except Exception as error:  # the other checks go on
            what = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            self.add(check, FAILED, time.monotonic() - began, errors=errors, note=what)
            return
        # An error that is not a number is not within anything.
        within = bool(tolerances) and all(
            errors.get(name, math.nan) <= most for name, most in tolerances.items()
        )
        outcome = PASSED if within else FAILED
        self.add(
            check, outcome, time.monotonic() - began, errors=errors, tolerances=dict(tolerances)
        )


def errors_text(row: Mapping[str, Any]) -> str:
    """Returns the errors of a finding beside their tolerances, "" if it has none."""
    limits = row.get("tolerances", {})
    return "".join(
        f"{name} {value:.1e}" + (f" (of {limits[name]:.0e}); " if name in limits else "; ")
        for name, value in row.get("errors", {}).items()
    )


def read(file: Path) -> list[dict[str, Any]]:
    """Returns the findings of a file, [] if there is none; a line that was cut off is left out."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows
