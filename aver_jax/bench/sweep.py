"""Sweeps: clips/s against batch, frames, resolution or devices; compile time against depth."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aver_jax.bench import timing
from aver_jax.bench.cases import Case
from aver_jax.bench.runner import Settings, our_implementation
from aver_jax.bench.worker.protocol import WorkerError, WorkerProcess
from aver_jax.errors import UserError

_AXIS_LABELS = {
    "batch": "clips per batch",
    "frames": "frames per clip",
    "resolution": "height and width of a frame, pixels",
    "depth": "layers",
    "devices": "devices",
}
# Simulated devices, which share the cores of one CPU host.
_SIMULATED = 4


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a sweep: its value, the case there, and how the layers are compiled."""

    value: int
    case: Case
    way: str = ""


def points_of(kind: str, base: Case) -> list[Point]:
    """Returns the points of a sweep around a training case.

    Args:
      kind: one of `cases.SWEEPS`, except "devices".
      base: the case, of a TimeSformer unless `kind` is "batch".

    Raises:
      UserError: the sweep does not apply to the case.
    """
    if base.task != "train":
        raise UserError(
            f"--sweep needs a training case, and {base.name} is {base.task}; choose another --case"
        )
    if kind == "batch":
        sizes = sorted({max(1, base.batch_size * n // 2) for n in (1, 2, 4)})
        return [Point(n, dataclasses.replace(base, batch_size=n)) for n in sizes]
    if base.model.get("name") != "timesformer":
        raise UserError(
            f"--sweep {kind} needs a TimeSformer, and {base.name} is none; choose another --case"
        )
    if kind == "frames":
        counts = [base.num_frames * n for n in (1, 2, 4)]
        return [Point(n, _resized(base, num_frames=n)) for n in counts]
    if kind == "resolution":
        patch = base.model["patch_size"]
        across = base.image_size // patch
        sizes = sorted({patch * max(1, round(across * n)) for n in (0.5, 1, 1.5)})
        return [Point(n, _resized(base, image_size=n)) for n in sizes]
    return list(_depths(base))


def _depths(base: Case) -> Iterator[Point]:
    """Yields one small clip: compile time depends on layers, not on the sizes of arrays."""
    small = _resized(base, image_size=2 * base.model["patch_size"], num_frames=2)
    small = dataclasses.replace(small, batch_size=1)
    deepest = base.model["depth"]
    depths = sorted({max(1, deepest * n // 12) for n in (2, 6, 12)})
    for depth in depths:
        for way, unroll in (("scan over layers", 1), ("unrolled", depth)):
            model = small.model | {"depth": depth, "unroll": unroll}
            yield Point(depth, dataclasses.replace(small, model=model), way)


def _resized(base: Case, **sizes: int) -> Case:
    return dataclasses.replace(base, **sizes, model=base.model | sizes)


def run_sweep(
    kind: str,
    base: Case,
    settings: Settings,
    log: Callable[[str], None],
    known: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Runs a sweep in one worker and returns its record.

    Args:
      kind: one of `cases.SWEEPS`.
      base: a training case.
      settings: see `Settings`; `rounds` rounds are timed at each point.
      log: takes a line of progress.
      known: measurements so far by case, as JSON; filled here, since sweeps share cases.

    Returns:
      "sweep", "title", "grows", "case", and "points", each with "value", "way" and either
      measurements ("seconds", a spread; "clips_per_s"; "flops_per_s"; "startup_seconds") or
      "error"; for simulated devices only "loss_difference"; "facts" of the worker.
    """
    record = {
        "sweep": kind,
        "title": base.name,
        "grows": _AXIS_LABELS[kind],
        "case": dataclasses.asdict(base),
        "points": [],
        "facts": {},
    }
    if kind == "devices":
        return _sweep_devices(record, base, settings, log)
    points = points_of(kind, base)
    if kind == "depth":
        record["title"] = f"{base.name.split('_train_')[0]}_train, one small clip"
    with our_implementation().start(settings.logs / f"sweep_{kind}.log") as worker:
        for point in points:
            fields = json.dumps(dataclasses.asdict(point.case))
            if fields not in known:
                known[fields] = _measurements(worker, point.case, settings)
                with contextlib.suppress(WorkerError):  # the next points will say so
                    worker.ask("drop", settings.timeout)
            found = {"value": point.value, "way": point.way, **known[fields]}
            record["points"].append(found)
            title = " ".join(f"{kind} {point.value} {point.way}".split())
            log(f"{title}: {_summary(kind, found)}")
        with contextlib.suppress(WorkerError):
            record["facts"] = worker.ask("metadata", settings.timeout)
    return record


def _summary(kind: str, point: Mapping[str, Any]) -> str:
    if "error" in point:
        return point["error"]
    if "loss_difference" in point:
        return f"losses differ by {point['loss_difference']:.1e}"
    if kind == "depth":
        return f"{point['startup_seconds']:.1f} s to compile"
    return f"{point['clips_per_s']:.4g} clips/s"


def _measurements(
    worker: WorkerProcess, case: Case, settings: Settings, devices: int = 1
) -> dict[str, Any]:
    fields = {"case": dataclasses.asdict(case)}
    try:
        first = worker.ask("prepare", settings.timeout, devices=devices, **fields)
        once = worker.ask("time", settings.timeout, repeats=1)["seconds"][0]
        calls = timing.calls_per_round(once)
        rounds = [
            worker.ask("time", settings.timeout, repeats=calls)["seconds"]
            for _ in range(settings.rounds)
        ]
        flops = worker.ask("costs", settings.timeout, brief=True, **fields)["flops"]
    except WorkerError as error:
        return {"error": str(error)}
    seconds = timing.seconds_per_call(rounds)
    return {
        "seconds": dataclasses.asdict(seconds),
        "clips_per_s": case.batch_size / seconds.median,
        "flops_per_s": flops / seconds.median,
        "startup_seconds": max(0.0, first["first_call_seconds"] - seconds.median),
        "losses": first.get("losses"),
    }


def _sweep_devices(
    record: dict[str, Any], base: Case, settings: Settings, log: Callable[[str], None]
) -> dict[str, Any]:
    """Times real devices with equal clips on each; of simulated ones compares the losses."""
    implementation = our_implementation(devices=_SIMULATED)
    with implementation.start(settings.logs / "sweep_devices.log") as worker:
        metadata = record["facts"] = worker.ask("metadata", settings.timeout)
        simulated, available = metadata["platform"] == "cpu", metadata["devices"]
        record["fake"] = simulated
        if simulated:
            base = dataclasses.replace(base, batch_size=math.lcm(base.batch_size, available))
        measure = _losses if simulated else _measurements
        for devices in [n for n in (1, 2, 4, 8, 16) if n <= available]:
            clips = base.batch_size * (1 if simulated else devices)
            case = dataclasses.replace(base, batch_size=clips)
            found = measure(worker, case, settings, devices)
            record["points"].append({"value": devices, "way": "", **found})
            worker.ask("drop", settings.timeout)
    if simulated:
        _compare_losses(record["points"])
    for point in record["points"]:
        log(f"devices {point['value']}: {_summary('devices', point)}")
    return record


def _losses(worker: WorkerProcess, case: Case, settings: Settings, devices: int) -> dict[str, Any]:
    fields = {"case": dataclasses.asdict(case), "devices": devices}
    try:
        return {"losses": worker.ask("prepare", settings.timeout, **fields)["losses"]}
    except WorkerError as error:
        return {"error": str(error)}


def _compare_losses(points: Sequence[dict[str, Any]]) -> None:
    expected = next((point["losses"] for point in points if "losses" in point), [])
    for point in points:
        if "losses" in point:
            pairs = zip(expected, point["losses"], strict=True)
            point["loss_difference"] = max(abs(a - b) / abs(a) for a, b in pairs)
