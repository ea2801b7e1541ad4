"""Results of the benchmark: every case in turn, its roofline bound, the machine and the command."""

import contextlib
import dataclasses
import datetime
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aver_jax.bench.cases import Case
from aver_jax.bench.roofline import Rates, faster, floor_of, rates_of
from aver_jax.bench.runner import OURS, Settings, Side, run_case
from aver_jax.bench.subprocess_worker import Child, Failed

# Shares of the time: what is slow to call needs more of it.
_WEIGHTS = {"train": 3, "relevance": 3, "inference": 2}


def run_benchmark(
    cases: Sequence[Case],
    sides: Sequence[Side],
    settings: Settings,
    minutes: float,
    command: Sequence[str],
    keep: Callable[[dict[str, Any]], None] = lambda results: None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    run: Callable[..., dict[str, Any]] = run_case,
) -> dict[str, Any]:
    """Runs cases and hands the results over after each, so that a stop loses one at most.

    Args:
      cases: in this order.
      sides: `OURS` first.
      settings: how.
      minutes: for everything; what is left is shared out before each case. A case that has none
        left is not run, and no side is waited for longer to be ready: both are recorded as
        failed. What is ready is timed. 0: no limit.
      command: words, for the record.
      keep: given the results so far after each case, and at the end.
      say: told how it goes, a line at a time.
      run: runs a case.

    Returns:
      "provenance"; "rates", those of `roofline.Rates`; "cases", the records of `run_case`, each
      with "floor" (`roofline.Floor`, or None) and its sides with "flops_per_s", "matmul_share" and
      "floor_gap" (measured over least seconds), None where nothing says them.
    """
    began = time.monotonic()
    rates = measured_rates(sides[0], cases, settings)
    results: dict[str, Any] = {"provenance": provenance(command), "rates": rates, "cases": []}
    for number, case in enumerate(cases):
        left = 60 * minutes - (time.monotonic() - began) if minutes else float("inf")
        weights = [_WEIGHTS.get(c.task, 1) for c in cases[number:]]
        if left <= 0:
            record = _not_run(case, "no time was left; raise --minutes")
        else:
            limited = dataclasses.replace(settings, deadline=time.monotonic() + left)
            record = run(case, sides, limited, left * weights[0] / sum(weights))
        results["cases"].append(record)
        say(f"[{number + 1}/{len(cases)}] {said(record)}")
        add_floors(results)
        keep(results)
    # Whatever else a shared machine did then, it can do what it did once.
    with contextlib.suppress(Failed):  # the first measurement will have to do
        again = measured_rates(sides[0], cases, settings)
        results["rates"] = dataclasses.asdict(faster(rates_of(rates), rates_of(again)))
        add_floors(results)
        keep(results)
    return results


def measured_rates(side: Side, cases: Sequence[Case], settings: Settings) -> dict[str, Any]:
    """Returns what the device does at best in the dtypes of some cases, by our worker."""
    dtypes = sorted({case.dtype for case in cases})
    log = settings.logs / "rates.log"
    with Child(side.name, side.command, log, side.environment, side.folder) as child:
        return child.ask("rates", settings.timeout, dtypes=dtypes)


def _not_run(case: Case, reason: str) -> dict[str, Any]:
    empty = {name: {} for name in ("sides", "ratios", "parity", "costs")}
    fields = {"alternated": True, "error": f"not run: {reason}", "seconds": 0.0}
    return {"case": dataclasses.asdict(case), **empty, **fields}


def failures(results: dict[str, Any]) -> list[str]:
    """Returns a line for each case or side of a case that failed."""
    lines = []
    for record in results["cases"]:
        name = record["case"]["name"]
        errors = {side["error"] for side in record["sides"].values() if "error" in side}
        if record["error"]:
            errors.add(record["error"])
        lines += [f"{name}: {error}" for error in sorted(errors)]
    return lines


def said(record: dict[str, Any]) -> str:
    """Returns a case's record in a line."""
    parts = [f"{record['case']['name']} ({record['seconds']:.0f} s):"]
    for name, side in record["sides"].items():
        if "clips_per_s" in side:
            parts.append(f"{name} {side['clips_per_s']:.4g} clips/s;")
        elif "error" in side:
            parts.append(f"{name} failed;")
    parts += [f"x{ratio['median']:.2f} {name};" for name, ratio in record["ratios"].items()]
    return " ".join([*parts, record["error"] or ""]).strip(" ;")


def add_floors(results: dict[str, Any]) -> None:
    """Puts every case against the floor of the device's rates."""
    rates = rates_of(results["rates"])
    for record in results["cases"]:
        record["floor"] = _floor(record, rates)
        for side in record["sides"].values():
            if "seconds" in side:
                side |= _against(record, side, rates)


def _floor(record: dict[str, Any], rates: Rates) -> dict[str, Any] | None:
    costs, case = record["costs"], record["case"]
    # What binds the input is decoding, on the host.
    if not costs or case["task"] == "input":
        return None
    dtype = case["model"].get("dtype", "float32")
    moved = sum(costs["bytes"].values())
    return dataclasses.asdict(floor_of(costs["flops"], moved, dtype, rates))


def _against(record: dict[str, Any], side: dict[str, Any], rates: Rates) -> dict[str, Any]:
    case, floor = record["case"], record["floor"]
    share = side["clips"] / case["batch_size"]
    seconds = side["seconds"]["median"]
    flops = record["costs"].get("flops", 0) * share
    peak = rates.matmul.get(case["model"].get("dtype", "float32"))
    return {
        "flops_per_s": flops / seconds if flops else None,
        "matmul_share": flops / seconds / peak if flops and peak else None,
        "floor_gap": seconds / (floor["seconds"] * share) if floor else None,
        # What the first call took beyond a call: tracing, compiling, loading.
        "startup_seconds": max(0.0, side["first_call_seconds"] - seconds),
    }


def ours_of(record: dict[str, Any]) -> dict[str, Any]:
    """Returns what was measured of our side; {} where it failed."""
    side = record["sides"].get(OURS, {})
    return side if "seconds" in side else {}


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """Returns the facts of this machine and of what was run.

    Args:
      command: its words; of absolute paths the last part is kept, since others have other folders.
    """
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {_processor()}, {_cores()} cores, {_memory()}",
        "system": platform.system(),
        "command": shlex.join(_without_folder(word) for word in command),
    }


def of_sides(records: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the devices and the versions ("jax 0.10.2") that the sides of some cases named."""
    devices, versions = {}, {}
    for record in records:
        for side in record["sides"].values():
            devices |= {side["device"]: None} if "device" in side else {}
            versions |= side.get("versions", {})
    return list(devices), [f"{name} {version}" for name, version in versions.items()]


def _without_folder(word: str) -> str:
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if os.path.isabs(value) else word


def _cores() -> int:
    # Fewer than the machine's where this process may not use all.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown memory"
    return f"{size / 2**30:.0f} GiB"
