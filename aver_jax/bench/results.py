"""The results of a benchmark: records of cases with roofline bounds, and their provenance."""

import contextlib
import dataclasses
import datetime
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aver_jax.bench.cases import Case
from aver_jax.bench.roofline import Rates, faster, rates_from_dict, roofline_bound
from aver_jax.bench.runner import Implementation, Settings, run_case
from aver_jax.bench.worker.protocol import WorkerError
from data_prep.workers import available_cores

# Shares of the time limit: slow calls need more of it.
_WEIGHTS = {"train": 3, "relevance": 3, "inference": 2}


def run_benchmark(
    cases: Sequence[Case],
    implementations: Sequence[Implementation],
    settings: Settings,
    minutes: float,
    command: Sequence[str],
    log: Callable[[str], None],
    save: Callable[[dict[str, Any]], None] = lambda results: None,
    run: Callable[..., dict[str, Any]] = run_case,
) -> dict[str, Any]:
    """Runs cases and returns the results; hands them over after each case as well.

    Args:
      cases: in this order.
      implementations: `runner.OURS` first.
      settings: see `Settings`.
      minutes: limit for everything, 0 for none. The remaining time is divided before each case. A
        case is recorded as failed if none remains, an implementation if it is not ready in time;
        those that are ready are timed in any case.
      command: words, for the record.
      log: takes a line of progress.
      save: takes the results so far, after each case and at the end.
      run: runs a case.

    Returns:
      "provenance"; "rates", those of `roofline.Rates`; "cases", the records of `run_case`, each
      with "floor" (its `roofline.Bound`, or None) and its sides with "flops_per_s", "matmul_share"
      and "floor_gap" (measured seconds over the bound), None where unknown.
    """
    began = time.monotonic()
    results: dict[str, Any] = {
        "provenance": provenance(command),
        "rates": measured_rates(implementations[0], cases, settings),
        "cases": [],
    }
    for number, case in enumerate(cases):
        left = 60 * minutes - (time.monotonic() - began) if minutes else float("inf")
        weights = [_WEIGHTS.get(c.task, 1) for c in cases[number:]]
        if left <= 0:
            record = _failed_record(case, "not run: no time was left; raise --minutes")
        else:
            limited = dataclasses.replace(settings, deadline=time.monotonic() + left)
            record = run(case, implementations, limited, left * weights[0] / sum(weights))
        results["cases"].append(record)
        log(f"[{number + 1}/{len(cases)}] {summary(record)}")
        save(with_bounds(results))
    # On a shared machine the better of two measurements is nearer to what it can do.
    with contextlib.suppress(WorkerError):
        again = rates_from_dict(measured_rates(implementations[0], cases, settings))
        best = faster(rates_from_dict(results["rates"]), again)
        results["rates"] = dataclasses.asdict(best)
    save(with_bounds(results))
    return results


def measured_rates(
    implementation: Implementation, cases: Sequence[Case], settings: Settings
) -> dict[str, Any]:
    """Returns the device's rates in the dtypes of some cases, measured by a worker."""
    dtypes = sorted({case.dtype for case in cases})
    with implementation.start(settings.logs / "rates.log") as worker:
        return worker.ask("rates", settings.timeout, dtypes=dtypes)


def _failed_record(case: Case, error: str) -> dict[str, Any]:
    empty = {name: {} for name in ("sides", "ratios", "parity", "costs")}
    fields = {"alternated": True, "error": error, "seconds": 0.0}
    return {"case": dataclasses.asdict(case), **empty, **fields}


def failures(results: dict[str, Any]) -> list[str]:
    """Returns a line for each failed case, or implementation in a case."""
    lines = []
    for record in results["cases"]:
        name = record["case"]["name"]
        errors = {measured["error"] for measured in record["sides"].values() if "error" in measured}
        if record["error"]:
            errors.add(record["error"])
        lines += [f"{name}: {error}" for error in sorted(errors)]
    return lines


def summary(record: dict[str, Any]) -> str:
    """Returns the record of a case in one line."""
    parts = [f"{record['case']['name']} ({record['seconds']:.0f} s):"]
    for name, measured in record["sides"].items():
        if "clips_per_s" in measured:
            parts.append(f"{name} {measured['clips_per_s']:.4g} clips/s;")
        elif "error" in measured:
            parts.append(f"{name} failed;")
    parts += [f"x{ratio['median']:.2f} {name};" for name, ratio in record["ratios"].items()]
    return " ".join([*parts, record["error"] or ""]).strip(" ;")


def with_bounds(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the results with the roofline bound of every case, put in place."""
    rates = rates_from_dict(results["rates"])
    for record in results["cases"]:
        record["floor"] = _bound(record, rates)
        for measured in record["sides"].values():
            if "seconds" in measured:
                measured |= _shares(record, measured, rates)
    return results


def _bound(record: dict[str, Any], rates: Rates) -> dict[str, Any] | None:
    costs, case = record["costs"], record["case"]
    # The input is bound by decoding on the host.
    if not costs or case["task"] == "input":
        return None
    dtype = case["model"].get("dtype", "float32")
    moved = sum(costs["bytes"].values())
    return dataclasses.asdict(roofline_bound(costs["flops"], moved, dtype, rates))


def _shares(record: dict[str, Any], measured: dict[str, Any], rates: Rates) -> dict[str, Any]:
    case, bound = record["case"], record["floor"]
    share = measured["clips"] / case["batch_size"]
    seconds = measured["seconds"]["median"]
    flops = record["costs"].get("flops", 0) * share
    peak = rates.matmul.get(case["model"].get("dtype", "float32"))
    return {
        "flops_per_s": flops / seconds if flops else None,
        "matmul_share": flops / seconds / peak if flops and peak else None,
        "floor_gap": seconds / (bound["seconds"] * share) if bound else None,
        # Tracing, compiling, loading.
        "startup_seconds": max(0.0, measured["first_call_seconds"] - seconds),
    }


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """Returns date, machine, system and command.

    Args:
      command: words; of absolute paths only the last part is kept.
    """
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {_processor()}, {available_cores()} cores, {_memory()}",
        "system": platform.system(),
        "command": shlex.join(_without_folder(word) for word in command),
    }


def devices_and_versions(records: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the devices and the versions ("jax 0.10.2") named in some records."""
    devices, versions = {}, {}
    for record in records:
        for measured in record["sides"].values():
            devices |= {measured["device"]: None} if "device" in measured else {}
            versions |= measured.get("versions", {})
    return list(devices), [f"{name} {version}" for name, version in versions.items()]


def _without_folder(word: str) -> str:
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if os.path.isabs(value) else word


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown memory"
    return f"{size / 2**30:.0f} GiB"
