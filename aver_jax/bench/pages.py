"""Pages of the benchmark: JSON, tables and plots in a folder."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aver_jax.bench.cases import Case
from aver_jax.bench.plot import benchmark_figure, sweeps_figure
from aver_jax.bench.results import failures, of_sides, provenance, run_benchmark
from aver_jax.bench.runner import OURS, Settings, Side
from aver_jax.bench.sweep import run_sweep, sweep_table
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


_LEGEND = """\
Every figure is the median over rounds, in brackets the quartiles; sides alternate, each in a
process of its own, after their answers to the same batch were compared. TFLOP/s: two for each
multiply-add, three forward passes for a training, two for relevance. Share: of the matmul rate
above. Floor: the larger of FLOPs over the matmul rate and bytes over the copy rate, the bytes being
inputs, parameters with gradients and optimizer state, and what the backward pass keeps of the
forward pass; the letter says which binds. Gap: measured time over the floor. Start-up: what the
first call took beyond a later one (compilation). Peak: {peaks}. Rates are those of this run: where
a machine has other work to do, shares and gaps of two runs do not compare."""


def benchmark_page(results: Mapping[str, Any], title: str = "Throughput") -> str:
    """Returns table.md: where the numbers come from, the table, and what failed."""
    parts = [f"# {title}", facts(results["provenance"], results["cases"], results["rates"])]
    parts.append(cases_table(results["cases"]))
    kinds = {side.get("peak_kind") for record in results["cases"] for side in _sides(record)}
    parts.append(_LEGEND.format(peaks=" or ".join(sorted(kinds - {None})) or "not known"))
    apart = [r["case"]["name"] for r in results["cases"] if not r["alternated"]]
    if apart:
        parts.append(
            "Not alternated, since the sides did not fit into memory together: " + ", ".join(apart)
        )
    parts.append(_checked(results["cases"]))
    parts.append(_notes(results["cases"]))
    if failed := failures(results):
        parts.append("Failed:\n\n" + "\n".join(f"- {line}" for line in failed))
    return "\n\n".join(part for part in parts if part) + "\n"


def facts(
    provenance: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    rates: Mapping[str, Any] | None,
) -> str:
    """Returns date, machine, devices, versions, command and measured rates as a list."""
    devices, versions = of_sides(records)
    lines = {
        "date": provenance["date"],
        "machine": provenance["machine"],
        "device": ", ".join(devices),
        "versions": ", ".join(versions),
        "command": f"`{provenance['command']}`",
    }
    if rates:
        matmul = ", ".join(
            f"{dtype} {rate / 1e12:.3g} TFLOP/s" for dtype, rate in rates["matmul"].items()
        )
        lines["measured rates"] = f"matmul {matmul}; copy {rates['copy'] / 1e9:.3g} GB/s"
    return "\n".join(f"- {name}: {value}" for name, value in lines.items() if value)


def cases_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of all cases and sides that were timed."""
    compared = any(record["ratios"] for record in records)
    head = ["case", "side", "clips/s", "ms a call", "TFLOP/s", "share", "floor, ms", "gap"]
    head += ["peak, MiB", "start-up, s"] + ["aver_jax is faster x"] * compared
    rows = []
    for record in records:
        for name, side in record["sides"].items():
            if "seconds" not in side:
                continue
            row = [record["case"]["name"] if name == OURS else "", name, *_cells(record, side)]
            ratio = record["ratios"].get(name)
            rows.append(row + [_spread(ratio, 1) if ratio else ""] * compared)
    if not rows:
        return ""
    align = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, align, *rows])


def _sides(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(record["sides"].values())


def _cells(record: Mapping[str, Any], side: Mapping[str, Any]) -> list[str]:
    floor = record["floor"]
    share = side["clips"] / record["case"]["batch_size"]
    least = f"{1e3 * floor['seconds'] * share:.3g} {floor['binds'][0]}" if floor else ""
    rate, part, gap = side["flops_per_s"], side["matmul_share"], side["floor_gap"]
    return [
        f"{side['clips_per_s']:.4g}",
        _spread(side["seconds"], 1e3),
        f"{rate / 1e12:.3g}" if rate else "",
        f"{100 * part:.0f}%" if part else "",
        least,
        f"{gap:.1f}" if gap else "",
        f"{side['peak_bytes'] / 2**20:.0f}",
        f"{side['startup_seconds']:.1f}",
    ]


def _spread(values: Mapping[str, float], scale: float) -> str:
    median, low, high = (scale * values[name] for name in ("median", "low", "high"))
    return f"{median:.3g} ({low:.3g}-{high:.3g})"


def _notes(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns what sides say of how they did it, such as the way they chose among several."""
    lines = [
        f"- {record['case']['name']}, {name}: {side['notes']}"
        for record in records
        for name, side in record["sides"].items()
        if side.get("notes")
    ]
    return "\n".join(["How sides did it:", "", *lines]) if lines else ""


def _checked(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns what was compared: answers of the sides, and FLOPs with XLA's count."""
    lines = []
    largest: dict[str, float] = {}
    for record in records:
        for side, found in record["parity"].items():
            if found:
                share = found["difference"] / found["tolerance"]
                largest[side] = max(largest.get(side, 0.0), share)
    if largest:
        shares = ", ".join(f"{100 * share:.0f}% ({side})" for side, share in largest.items())
        lines.append(f"Largest difference from aver_jax, of what is allowed: {shares}.")
    counted = {
        record["case"]["name"]: record["costs"]["xla_flops"] / record["costs"]["flops"]
        for record in records
        if record["costs"].get("xla_flops")
    }
    if counted:
        shares = ", ".join(f"{name} {ratio:.3f}" for name, ratio in counted.items())
        lines.append(
            "XLA's count of FLOPs over the analytic one (it counts elementwise work, and no "
            f"products with padding): {shares}."
        )
    return "\n\n".join(lines)
