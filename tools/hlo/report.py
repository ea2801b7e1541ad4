"""Costs of a compiled function as text and as JSON: by class, by source line, costliest rows."""

import collections
import dataclasses
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from aver_jax.chips.hlo.costs import CLASSES, Cost, Costs, alike
from tools.hlo.traces import Measured

_MEANING = {
    "matmul": "matrix products and convolutions",
    "elementwise": "elementwise work and reductions",
    "transpose": "changes of the order in memory",
    "copy": "copies in the same order",
    "slice": "slices, stacks, concatenations",
    "fill": "constants written to memory",
    "collective": "exchange between devices",
    "other": "other",
}
# Of the measured time; more of it in unknown instructions means that the trace is another's.
_STRANGE = 0.05


@dataclasses.dataclass(frozen=True)
class Row:
    """A `Cost` with its share of the bytes and, if measured, seconds in one run."""

    cost: Cost
    share: float
    seconds: float | None
    time_share: float | None


@dataclasses.dataclass(frozen=True)
class Report:
    """What a compiled function costs in one run.

    Attributes:
      rows: instructions, like ones together; the costliest first, by time if it was measured.
      bytes: read and written.
      flops: of products whose size is known.
      unknown_flops: names of products whose size the text does not tell.
      unknown_loops: names of loops counted as one run.
      measured: the trace, if there is one.
      runs: how often it ran in the trace.
      seconds: measured, of the instructions of one run.
      strange: share of the measured time in instructions that this function does not have.
    """

    rows: tuple[Row, ...]
    bytes: float
    flops: float
    unknown_flops: tuple[str, ...]
    unknown_loops: tuple[str, ...]
    measured: Measured | None
    runs: float
    seconds: float
    strange: float

    def shares(self, key: Callable[[Cost], str]) -> dict[str, tuple[float, float]]:
        """Returns {key: (share of the bytes, share of the time)}, the largest first."""
        found: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
        for row in self.rows:
            found[key(row.cost)][0] += row.share
            found[key(row.cost)][1] += row.time_share or 0.0
        order = 1 if self.measured else 0
        ranked = sorted(found.items(), key=lambda item: -item[1][order])
        return {name: (share, time) for name, (share, time) in ranked}

    def moving(self, chosen: Callable[[Cost], bool] = lambda cost: True) -> tuple[float, float]:
        """Returns the shares of bytes and time of the copies and transposes that are `chosen`."""
        rows = [r for r in self.rows if r.cost.klass in ("copy", "transpose") and chosen(r.cost)]
        return sum(row.share for row in rows), sum(row.time_share or 0.0 for row in rows)


def make_report(found: Costs, measured: Measured | None = None) -> Report:
    """Puts costs and measured times together, by the instructions' names."""
    rows = alike(found.rows)
    total = sum(row.bytes for row in rows) or 1.0
    names = {name for row in rows for name in row.names}
    runs, strange, seconds = 1.0, 0.0, {}
    if measured:
        expected = {row.name: row.runs for row in found.rows if row.runs}
        ratios = {n: count / expected[n] for n, count in measured.counts.items() if n in expected}
        runs = statistics.median(ratios.values()) if ratios else 1.0
        for name, spent in measured.seconds.items():
            # A trace begins and ends within a run: some instructions are in it once less. Where it
            # has several events of one (the kernels of a call), their number tells nothing.
            ratio = ratios.get(name, runs)
            seconds[name] = spent / (ratio if 0.5 <= ratio / runs <= 1.5 else runs)
        strange = sum(s for n, s in seconds.items() if n not in names)
    whole = sum(seconds.values()) or 1.0

    def row_of(cost: Cost) -> Row:
        spent = sum(seconds.get(name, 0.0) for name in cost.names) if measured else None
        return Row(
            cost=cost,
            share=cost.bytes / total,
            seconds=spent,
            time_share=None if spent is None else spent / whole,
        )

    ordered = sorted(
        map(row_of, rows),
        key=lambda row: (-(row.seconds or 0.0), -row.cost.bytes, row.cost.name),
    )
    return Report(
        rows=tuple(ordered),
        bytes=sum(row.bytes for row in rows),
        flops=sum(row.flops or 0.0 for row in rows),
        unknown_flops=tuple(n for row in rows if row.flops is None for n in row.names),
        unknown_loops=found.unknown_loops,
        measured=measured,
        runs=runs,
        seconds=sum(seconds.values()),
        strange=strange / whole,
    )


def report_text(report: Report, top: int) -> str:
    """Returns the report as lines to print."""
    return "\n".join(
        [
            *_headlines(report),
            "",
            *_classes(report),
            "",
            *_lines(report, top),
            "",
            *_instructions(report, top),
        ]
    )


def _headlines(report: Report) -> list[str]:
    everything, pure = report.moving(), report.moving(lambda cost: cost.pure)
    hidden = sum(row.share for row in report.rows if _hides(row.cost))
    lines = [
        f"one run moves {report.bytes / 1e9:.3f} GB and computes {report.flops / 1e9:.3f} GFLOP in "
        "products, per device",
        f"copies and transposes: {everything[0]:.1%} of the bytes ({pure[0]:.1%} that compute "
        f"nothing); {hidden:.1%} more in other fusions that also reorder data",
    ]
    if report.measured:
        of = report.measured
        lines += [
            f"measured: {of.module} in {of.file}",
            f"  {report.runs:g} runs, {report.seconds * 1e3:.1f} ms of "
            f"instructions each; {of.busy:.1%} of {of.span:.3f} s between the first and the last "
            "instruction is covered by one",
            f"  copies and transposes: {everything[1]:.1%} of the time ({pure[1]:.1%} that compute "
            "nothing)",
        ]
        if report.strange > _STRANGE:
            lines.append(
                f"  {report.strange:.0%} of the time is of instructions that this function does "
                "not have: was the trace made with this config, batch size, device and version?"
            )
    if report.unknown_flops:
        lines.append(f"operations unknown: {_some(report.unknown_flops)}")
    if report.unknown_loops:
        lines.append(f"loops of unknown length, counted once: {_some(report.unknown_loops)}")
    return lines


def _classes(report: Report) -> list[str]:
    timed = report.measured is not None
    shares = report.shares(lambda cost: cost.klass)
    lines = [f"{'bytes':>7} {'time':>7}  class" if timed else f"{'bytes':>7}  class"]
    for name in CLASSES:
        if name in shares:
            lines.append(f"{_both(*shares[name], timed)}  {name}: {_MEANING[name]}")
    return lines


def _lines(report: Report, top: int) -> list[str]:
    timed = report.measured is not None
    shares = report.shares(lambda cost: cost.source or "(no line of ours)")
    lines = [f"{'bytes':>7} {'time':>7}  source line" if timed else f"{'bytes':>7}  source line"]
    for name, (share, time) in list(shares.items())[:top]:
        parts: dict[str, float] = collections.defaultdict(float)
        for row in report.rows:
            if (row.cost.source or "(no line of ours)") == name:
                parts[row.cost.klass] += (row.time_share if timed else row.share) or 0.0
        classes = ", ".join(
            f"{klass} {part:.1%}" for klass, part in sorted(parts.items(), key=lambda p: -p[1])[:4]
        )
        lines.append(f"{_both(share, time, timed)}  {name:<24} {classes}")
    return lines


def _instructions(report: Report, top: int) -> list[str]:
    timed = report.measured is not None
    head = f"{'bytes':>7} {'time':>7} {'ms':>8}" if timed else f"{'bytes':>7}"
    head += f" {'MB':>9} {'GFLOP':>8}" + (f" {'GB/s':>6} {'GF/s':>6}" if timed else "")
    lines = [f"{head} {'runs':>5} {'class':<11} {'source':<20} what"]
    for row in report.rows[:top]:
        cost = row.cost
        line = _both(row.share, row.time_share or 0.0, timed)
        line += f" {row.seconds * 1e3:8.2f}" if timed else ""
        line += f" {cost.bytes / 1e6:9.2f} {_giga(cost.flops)}"
        if timed:
            line += f" {_rate(cost.bytes, row.seconds)} {_rate(cost.flops, row.seconds)}"
        more = f" and {len(cost.names) - 1} alike" if len(cost.names) > 1 else ""
        line += f" {cost.runs:5d} {cost.klass:<11} {cost.source:<20} {cost.path}: {cost.what}"
        lines.append(f"{line} -> {_cut(cost.shape)} [{cost.name}{more}, {cost.kind}]")
    return lines


def _hides(cost: Cost) -> bool:
    return cost.reorders and cost.klass not in ("copy", "transpose")


def _both(share: float, time: float, timed: bool) -> str:
    return f"{share:7.1%} {time:7.1%}" if timed else f"{share:7.1%}"


def _giga(flops: float | None) -> str:
    return f"{'?':>8}" if flops is None else f"{flops / 1e9:8.3f}"


def _rate(amount: float | None, seconds: float | None) -> str:
    return f"{amount / seconds / 1e9:6.1f}" if amount and seconds else f"{'':>6}"


def _cut(shape: str, limit: int = 48) -> str:
    return shape if len(shape) <= limit else shape[: limit - 3] + "..."


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def as_json(report: Report) -> dict[str, Any]:
    """Returns the whole report as JSON types: bytes, operations and seconds of one run."""

    def shares(key: Callable[[Cost], str]) -> dict[str, dict[str, float]]:
        return {
            name: {"bytes": share, **({"time": time} if report.measured else {})}
            for name, (share, time) in report.shares(key).items()
        }

    everything, pure = report.moving(), report.moving(lambda cost: cost.pure)
    content: dict[str, Any] = {
        "bytes": report.bytes,
        "flops": report.flops,
        "copy_transpose_share": {"bytes": everything[0], "bytes_pure": pure[0]},
        "classes": shares(lambda cost: cost.klass),
        "sources": shares(lambda cost: cost.source),
        "unknown_flops": list(report.unknown_flops),
        "unknown_loops": list(report.unknown_loops),
        "instructions": [
            dataclasses.asdict(row.cost) | {"share": row.share, "seconds": row.seconds}
            for row in report.rows
        ],
    }
    if report.measured:
        content["copy_transpose_share"] |= {"time": everything[1], "time_pure": pure[1]}
        content["measured"] = {
            "file": str(report.measured.file),
            "module": report.measured.module,
            "runs": report.runs,
            "busy": report.measured.busy,
            "span_seconds": report.measured.span,
            "seconds_per_run": report.seconds,
            "share_of_unknown_instructions": report.strange,
        }
    return content
