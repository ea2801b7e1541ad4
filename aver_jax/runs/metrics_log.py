"""What a run writes while it trains: metrics.jsonl and TensorBoard events."""

import json
from pathlib import Path

import tensorboardX

from aver_jax.errors import UserError
from aver_jax.runtime.atomic_files import write_whole


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Returns the lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(
                f"{path} line {number} is not JSON ({error}); remove the line"
            ) from error
    return records


class MetricsLog:
    """Appends scalars by step to `metrics.jsonl` and to TensorBoard events.

    Args:
      workdir: the run folder.
      step: the step that was restored; whatever was logged after it is cut away, since the run
        will do those steps again.
    """

    def __init__(self, workdir: Path, step: int):
        path = workdir / "metrics.jsonl"
        kept = [record for record in read_metrics(path) if record["step"] <= step]
        write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = path.open("a")
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1 if kept else None
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one line, whole and at once."""
        self._file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes both files."""
        self._file.close()
        self._events.close()
