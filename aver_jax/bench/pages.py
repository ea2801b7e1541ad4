"""The files of a benchmark or of sweeps: results as JSON, Markdown tables, plots."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aver_jax.bench.cases import Case
from aver_jax.bench.plots import benchmark_figure, sweeps_figure
from aver_jax.bench.results import devices_and_versions, failures, provenance, run_benchmark
from aver_jax.bench.runner import OURS, Implementation, Settings
from aver_jax.bench.sweep import run_sweep
from aver_jax.errors import UserError
from aver_jax.report.figures import png
from aver_jax.runtime.atomic_files import write_whole

_LEGEND = """\
Every figure is the median over rounds, with quartiles in brackets. Implementations alternate, each
in its own process, after their outputs on the same batch were compared. TFLOP/s: two per
multiply-add; training counts as three forward passes, relevance as two. Share: of the matmul rate
above. Bound: the roofline bound, the larger of FLOPs over the matmul rate (F) and bytes over the
copy rate (b); bytes are inputs, parameters with gradients and optimizer state, and activations kept
for the backward pass. Gap: measured time over the bound. Start-up: time of the first call beyond
that of a later one (compilation). Peak: {peaks}. Rates are those of this run: on a shared machine,
shares and gaps of two runs are not comparable."""


def benchmark_page(results: Mapping[str, Any]) -> str:
    """Returns table.md: provenance, the table of all cases, its legend, and failures."""
    records = results["cases"]
    kinds = {
        measured.get("peak_kind") for record in records for measured in record["sides"].values()
    }
    parts = [
        "# Throughput",
        metadata_list(results["provenance"], records, results["rates"]),
        cases_table(records),
        _LEGEND.format(peaks=" or ".join(sorted(kinds - {None})) or "not known"),
    ]
    if separate := [r["case"]["name"] for r in records if not r["alternated"]]:
        parts.append(
            "Not alternated, since not all implementations fit into memory at once: "
            + ", ".join(separate)
        )
    parts += [_comparisons(records), _notes(records)]
    if failed := failures(results):
        parts.append("Failed:\n\n" + "\n".join(f"- {line}" for line in failed))
    return "\n\n".join(part for part in parts if part) + "\n"


def metadata_list(
    provenance: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    rates: Mapping[str, Any] | None,
) -> str:
    """Returns date, machine, devices, versions, command and measured rates as a Markdown list."""
    devices, versions = devices_and_versions(records)
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
    """Returns the table of all cases and implementations that were timed."""
    compared = any(record["ratios"] for record in records)
    head = ["case", "implementation", "clips/s", "ms a call", "TFLOP/s", "share", "bound, ms"]
    head += ["gap", "peak, MiB", "start-up, s"] + ["aver_jax is faster x"] * compared
    rows = []
    for record in records:
        for name, measured in record["sides"].items():
            if "seconds" not in measured:
                continue
            row = [record["case"]["name"] if name == OURS else "", name, *_cells(record, measured)]
            ratio = record["ratios"].get(name)
            rows.append(row + [_spread(ratio, 1) if ratio else ""] * compared)
    return _table(head, ["---", "---", *["---:"] * (len(head) - 2)], rows) if rows else ""


def _table(head: list[str], rule: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def _cells(record: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    bound = record["floor"]
    share = measured["clips"] / record["case"]["batch_size"]
    least = f"{1e3 * bound['seconds'] * share:.3g} {bound['binds'][0]}" if bound else ""
    rate, part, gap = measured["flops_per_s"], measured["matmul_share"], measured["floor_gap"]
    return [
        f"{measured['clips_per_s']:.4g}",
        _spread(measured["seconds"], 1e3),
        f"{rate / 1e12:.3g}" if rate else "",
        f"{100 * part:.0f}%" if part else "",
        least,
        f"{gap:.1f}" if gap else "",
        f"{measured['peak_bytes'] / 2**20:.0f}",
        f"{measured['startup_seconds']:.1f}",
    ]


def _spread(values: Mapping[str, float], scale: float) -> str:
    median, low, high = (scale * values[name] for name in ("median", "low", "high"))
    return f"{median:.3g} ({low:.3g}-{high:.3g})"


def _notes(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns how implementations did it, such as which variant was the fastest."""
    lines = [
        f"- {record['case']['name']}, {name}: {measured['notes']}"
        for record in records
        for name, measured in record["sides"].items()
        if measured.get("notes")
    ]
    return "\n".join(["Variants chosen by the implementations:", "", *lines]) if lines else ""


def _comparisons(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the differences of outputs, and of the FLOPs from XLA's count."""
    lines = []
    largest: dict[str, float] = {}
    for record in records:
        for name, found in record["parity"].items():
            if found:
                share = found["difference"] / found["tolerance"]
                largest[name] = max(largest.get(name, 0.0), share)
    if largest:
        shares = ", ".join(f"{100 * share:.0f}% ({name})" for name, share in largest.items())
        lines.append(f"Largest difference from aver_jax, as a share of the tolerance: {shares}.")
    counted = {
        record["case"]["name"]: record["costs"]["xla_flops"] / record["costs"]["flops"]
        for record in records
        if record["costs"].get("xla_flops")
    }
    if counted:
        shares = ", ".join(f"{name} {ratio:.3f}" for name, ratio in counted.items())
        lines.append(
            "XLA's count of FLOPs over the analytic one (it counts elementwise work, but not "
            f"products with padding): {shares}."
        )
    return "\n\n".join(lines)


def sweep_table(record: Mapping[str, Any]) -> str:
    """Returns a sweep as a heading and a Markdown table."""
    kind, points = record["sweep"], record["points"]
    parts = [f"## {kind.capitalize()}: {record['title']}"]
    if record.get("fake"):
        parts.append(
            "Devices simulated on the cores of one host. They show that the losses are the same; "
            "only real devices can show how clips/s scale."
        )
        head = ["devices", "largest relative difference of the losses of three steps"]
        rows = [[f"{p['value']}", _or_error(p, "loss_difference", ".1e")] for p in points]
    elif kind == "depth":
        ways = list(dict.fromkeys(point["way"] for point in points))
        head = ["layers"]
        head += [f"{way}: {what}" for way in ways for what in ("seconds to compile", "ms a step")]
        at = {(point["value"], point["way"]): point for point in points}
        rows = [
            [f"{value}", *(cell for way in ways for cell in _depth_cells(at[value, way]))]
            for value in dict.fromkeys(point["value"] for point in points)
        ]
    else:
        head = [record["grows"], "clips/s", "ms a step (quartiles)", "TFLOP/s"]
        rows = [[f"{p['value']}", *_growth_cells(p)] for p in points]
    return "\n\n".join([*parts, _table(head, ["---:"] * len(head), rows)])


def _or_error(point: Mapping[str, Any], key: str, form: str) -> str:
    return point["error"] if "error" in point else format(point[key], form)


def _depth_cells(point: Mapping[str, Any]) -> list[str]:
    if "error" in point:
        return [point["error"], ""]
    return [f"{point['startup_seconds']:.1f}", f"{1e3 * point['seconds']['median']:.3g}"]


def _growth_cells(point: Mapping[str, Any]) -> list[str]:
    if "error" in point:
        return [point["error"], "", ""]
    seconds = point["seconds"]
    spread = f"{1e3 * seconds['low']:.4g}-{1e3 * seconds['high']:.4g}"
    return [
        f"{point['clips_per_s']:.4g}",
        f"{1e3 * seconds['median']:.4g} ({spread})",
        f"{point['flops_per_s'] / 1e12:.3g}",
    ]


def write_benchmark(
    cases: Sequence[Case],
    implementations: Sequence[Implementation],
    settings: Settings,
    out: Path,
    minutes: float,
    command: Sequence[str],
) -> list[str]:
    """Runs cases and writes OUT/{results.json,table.md,plot.png}; returns a line per failure.

    The first two are written after every case.
    """

    def save(results: dict[str, Any]) -> None:
        write_whole(out / "results.json", json.dumps(results, indent=1))
        write_whole(out / "table.md", benchmark_page(results))

    results = run_benchmark(cases, implementations, settings, minutes, command, _log, save)
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
    """Runs sweeps and writes OUT/{sweeps.json,sweeps.md,sweeps.png}; returns a line per failure.

    Raises:
      UserError: none of the cases is a training case.
    """
    trainings = [case for case in cases if case.task == "train"]
    if not trainings:
        raise UserError("--sweep needs a training case, and --case matches none")
    written = provenance(command)
    sweeps, known = [], {}
    for kind in kinds:
        sweeps.append(run_sweep(kind, trainings[0], settings, _log, known))
        content = {"provenance": written, "sweeps": sweeps}
        write_whole(out / "sweeps.json", json.dumps(content, indent=1))
    records = [{"sides": {"": sweep["facts"]}} for sweep in sweeps]
    parts = ["# Sweeps", metadata_list(written, records, None)]
    write_whole(out / "sweeps.md", "\n\n".join([*parts, *map(sweep_table, sweeps)]) + "\n")
    if figure := sweeps_figure(sweeps):
        write_whole(out / "sweeps.png", png(figure))
    return [
        f"{sweep['sweep']} {point['value']}: {point['error']}"
        for sweep in sweeps
        for point in sweep["points"]
        if "error" in point
    ]


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
