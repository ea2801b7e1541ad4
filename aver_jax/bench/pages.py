"""A benchmark's or a sweep's files: results as JSON, tables, plots."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aver_jax.bench.cases import Case
from aver_jax.bench.plot import benchmark_figure, sweeps_figure
from aver_jax.bench.provenance import provenance
from aver_jax.bench.results import failures, run_benchmark
from aver_jax.bench.runner import Settings, Side
from aver_jax.bench.sweep import run_sweep, sweep_table
from aver_jax.bench.table import benchmark_page, facts
from aver_jax.errors import UserError
from aver_jax.report.figures import png
from aver_jax.runtime.atomic_files import write_whole


def write_benchmark(
    cases: Sequence[Case],
    sides: Sequence[Side],
    settings: Settings,
    out: Path,
    minutes: float,
    command: Sequence[str],
) -> list[str]:
    """Runs cases and writes OUT/{results.json,table.md,plot.png}; returns lines on what failed.

    All but the plot are there from the first case on, and grow.
    """

    def keep(results: dict[str, Any]) -> None:
        write_whole(out / "results.json", json.dumps(results, indent=1))
        write_whole(out / "table.md", benchmark_page(results))

    results = run_benchmark(cases, sides, settings, minutes, command, keep, _say)
    if figure := benchmark_figure(results):
        write_whole(out / "plot.png", png(figure))
    return failures(results)


def write_sweeps(
    kinds: Sequence[str],
    cases: Sequence[Case],
    settings: Settings,
    out: Path,
    command: Sequence[str],
) -> list[str]:
    """Runs sweeps and writes OUT/{sweeps.json,sweeps.md,sweeps.png}; returns what failed.

    Raises:
      UserError: none of the cases is a training.
    """
    trainings = [case for case in cases if case.task == "train"]
    if not trainings:
        raise UserError("--sweep grows a training, and --case matches none")
    where = provenance(command)
    sweeps, known = [], {}
    for kind in kinds:
        sweeps.append(run_sweep(kind, trainings[0], settings, _say, known))
        write_whole(
            out / "sweeps.json", json.dumps({"provenance": where, "sweeps": sweeps}, indent=1)
        )
    sides = [{"sides": {"": sweep["facts"]}} for sweep in sweeps]
    parts = ["# How cost grows", facts(where, sides, None)]
    write_whole(out / "sweeps.md", "\n\n".join([*parts, *map(sweep_table, sweeps)]) + "\n")
    if figure := sweeps_figure(sweeps):
        write_whole(out / "sweeps.png", png(figure))
    return [
        f"{sweep['sweep']} {point['value']}: {point['error']}"
        for sweep in sweeps
        for point in sweep["points"]
        if "error" in point
    ]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
