"""Measured times of a compiled function's instructions, from a trace that `jax.profiler` wrote."""

import collections
import dataclasses
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from aver_jax.errors import UserError

_NAMES = ("perfetto_trace.json.gz", "*.trace.json.gz", "*.trace.json")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a trace says of one module.

    Attributes:
      file: the trace.
      module: the module's name.
      seconds: {instruction: seconds in all}, of the whole trace.
      counts: {instruction: number of events}.
      busy: share of the time from the first instruction to the last in which at least one ran.
      span: that time in seconds.
    """

    file: Path
    module: str
    seconds: dict[str, float]
    counts: dict[str, int]
    busy: float
    span: float


def trace_file(place: Path) -> Path:
    """Returns the newest trace in a folder, or the file itself.

    Raises:
      UserError: nothing there, or no trace in it.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(
            f"no trace at {place}: no such folder; give what `aver train --profile` wrote"
        )
    for name in _NAMES:
        found = sorted(place.rglob(name), key=lambda path: path.stat().st_mtime)
        if found:
            return found[-1]
    raise UserError(
        f"no trace in {place}: expected perfetto_trace.json.gz or *.trace.json.gz in it; profile "
        "with jax.profiler.trace(..., create_perfetto_trace=True)"
    )


def read(place: Path, module: str, containers: Iterable[str] = ()) -> Measured:
    """Returns the measured times of a module's instructions.

    On a CPU they are events of the worker threads; on an accelerator those of the device's
    streams, named by their kernels, or of its line of XLA operations.

    Args:
      place: a trace or a folder that holds one.
      module: its name; without events of that name, the module that took longest.
      containers: instructions whose events hold those of others, and do not count.

    Raises:
      UserError: no trace, one that cannot be read, or one without instructions.
    """
    file = trace_file(Path(place))
    try:
        content = file.read_bytes()
        content = json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)
        events = content["traceEvents"] if isinstance(content, dict) else content
        runs = list(_instructions(events))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a trace of jax.profiler ({error})") from error
    containers = set(containers)
    by_module: dict[str, list] = collections.defaultdict(list)
    for of, name, start, duration in runs:
        if name not in containers:
            by_module[of].append((name, start, duration))
    if not by_module:
        raise UserError(
            f"{file} names no XLA operation; trace the steps themselves, after the first one"
        )
    total = {of: sum(duration for _, _, duration in each) for of, each in by_module.items()}
    chosen = module if module in by_module else max(total, key=total.get)
    seconds: dict[str, float] = collections.Counter()
    counts: dict[str, int] = collections.Counter()
    for name, _, duration in by_module[chosen]:
        seconds[name] += duration * 1e-6
        counts[name] += 1
    busy, span = _busy([(start, start + length) for _, start, length in by_module[chosen]])
    return Measured(file, chosen, dict(seconds), dict(counts), busy, span)


def _instructions(events: list[dict]) -> Iterable[tuple[str, str, float, float]]:
    """Yields (module, instruction, start, duration), both in microseconds."""
    processes, threads = {}, {}
    for event in events:
        if event.get("ph") == "M" and event.get("name") == "process_name":
            processes[event["pid"]] = event["args"]["name"]
        elif event.get("ph") == "M" and event.get("name") == "thread_name":
            threads[event["pid"], event["tid"]] = event["args"]["name"]
    found = [event for event in events if event.get("ph") == "X"]
    devices = {pid for pid, name in processes.items() if name.startswith("/device:")}
    on_device = [event for event in found if event["pid"] in devices]
    if on_device:
        # Other lines of a device (modules, names, source) tell of the same time again.
        streams = [
            e for e in on_device if threads.get((e["pid"], e.get("tid")), "")[:6] == "Stream"
        ]
        found = [event for event in streams if "hlo_op" in event.get("args", {})]
        if not found:
            found = [e for e in on_device if threads.get((e["pid"], e.get("tid"))) == "XLA Ops"]
    for event in found:
        arguments = event.get("args", {})
        name = arguments.get("hlo_op") or (event["name"] if on_device else "")
        if name:
            module = arguments.get("hlo_module", "").split("(")[0]
            yield module, name, float(event["ts"]), float(event["dur"])


def _busy(intervals: list[tuple[float, float]]) -> tuple[float, float]:
    """Returns the share of time that intervals cover together, and the time in seconds."""
    covered, end = 0.0, float("-inf")
    ordered = sorted(intervals)
    for start, stop in ordered:
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    span = end - ordered[0][0]
    return (covered / span if span else 1.0), span * 1e-6
