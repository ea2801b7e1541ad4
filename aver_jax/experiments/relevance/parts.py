"""The finished parts of an experiment, one CSV file each, so that a stopped one can go on."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aver_jax.errors import UserError
from aver_jax.runtime.atomic_files import check_writable, csv_text, write_whole


class Parts:
    """OUT/parts and, beside it, OUT/settings.json, which says what the parts were made with.

    Args:
      out: folder of the experiment.
      settings: everything that a part depends on; JSON types.

    Raises:
      UserError: the folder holds parts of other settings, or cannot be written to.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]):
        check_writable(out, "--out")
        self._folder, self._path = out / "parts", out / "settings.json"
        settings = json.loads(json.dumps(settings))
        if self._path.is_file():
            stored = json.loads(self._path.read_text())
            other = sorted(k for k in {*stored, *settings} if stored.get(k) != settings.get(k))
            if other:
                raise UserError(
                    f"{out} holds results of another {' and another '.join(other)}; choose another "
                    "--out, or remove it"
                )
        else:
            write_whole(self._path, json.dumps(settings, indent=2) + "\n")

    def read(self, name: str) -> list[dict[str, str]] | None:
        """Returns the lines of a part by its head; None if it is not there yet."""
        path = self._folder / f"{name}.csv"
        if not path.is_file():
            return None
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def write(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Writes a part whole: a head, then lines."""
        write_whole(self._folder / f"{name}.csv", csv_text(rows))
