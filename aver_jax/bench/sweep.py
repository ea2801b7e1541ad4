"""How cost grows: clips/s against batch, frames, resolution, devices; start-up against depth."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aver_jax.bench import timing
from aver_jax.bench.cases import Case
from aver_jax.bench.runner import OURS, Settings, our_side
from aver_jax.bench.subprocess_worker import Child, Failed
from aver_jax.errors import UserError

_GROWS = {
    "batch": "clips in a batch",
    "frames": "frames of a clip",
    "resolution": "side of a frame, pixels",
    "depth": "layers",
    "devices": "devices",
}
# Fake devices share the cores of one host.
_FAKE = 4


@dataclasses.dataclass(frozen=True)
class Point:
    """One place of a sweep: what grows, the case there, and how its layers are compiled."""

    value: int
    case: Case
    way: str = ""


def points_of(kind: str, base: Case) -> list[Point]:
    """Returns the places of a sweep, around the training that it starts from.

    Args:
      kind: one of `cases.SWEEPS` but "devices".
      base: a training of a TimeSformer, or of another model for "batch".

    Raises:
      UserError: the sweep does not apply to the case.
    """
    if base.task != "train":
        raise UserError(
            f"--sweep grows a training, and {base.name} is {base.task}; choose another --case"
        )
    if kind == "batch":
        sizes = sorted({max(1, base.batch_size * n // 2) for n in (1, 2, 4)})
        return [Point(n, dataclasses.replace(base, batch_size=n)) for n in sizes]
    if base.model.get("name") != "timesformer":
        raise UserError(
            f"--sweep {kind} grows a TimeSformer, and {base.name} is none; choose another --case"
        )
    if kind == "frames":
        counts = [base.num_frames * n for n in (1, 2, 4)]
        return [Point(n, _resized(base, num_frames=n)) for n in counts]
    if kind == "resolution":
        patch = base.model["patch_size"]
        across = base.image_size // patch
        sides = sorted({patch * max(1, round(across * n)) for n in (0.5, 1, 1.5)})
        return [Point(n, _resized(base, image_size=n)) for n in sides]
    return list(_depths(base))


def _depths(base: Case) -> Iterator[Point]:
    """One small clip: sizes of arrays are no matter to a compiler, the number of layers is."""
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
    say: Callable[[str], None],
    known: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Runs a sweep in one worker and returns its record.

    Args:
      kind: one of `cases.SWEEPS`.
      base: a training.
      settings: how; `rounds` calls are timed at each point.
      say: told how it goes, a line at a time.
      known: what was measured so far of cases, as JSON; sweeps of one base share a place.

    Returns:
      "sweep", "title", "grows", "case", and "points", each with "value", "way" and either what was
      measured ("seconds", a spread; "clips_per_s"; "flops_per_s"; "startup_seconds") or "error";
      for fake devices "loss_difference" alone; "facts" of the worker.
    """
    known = {} if known is None else known
    record = {
        "sweep": kind,
        "title": base.name,
        "grows": _GROWS[kind],
        "case": dataclasses.asdict(base),
        "points": [],
        "facts": {},
    }
    if kind == "devices":
        return _devices(record, base, settings, say)
    points = points_of(kind, base)
    if kind == "depth":
        record["title"] = f"{base.name.split('_train_')[0]}_train, one small clip"
    side = our_side()
    log = settings.logs / f"sweep_{kind}.log"
    with Child(OURS, side.command, log, side.environment) as child:
        for point in points:
            found = {"value": point.value, "way": point.way}
            fields = json.dumps(dataclasses.asdict(point.case))
            if fields not in known:
                known[fields] = _measured(child, point.case, settings)
                with contextlib.suppress(Failed):  # then the next points say so
                    child.ask("drop", settings.timeout)
            found |= known[fields]
            record["points"].append(found)
            say(" ".join(f"{kind} {point.value} {point.way}".split()) + f": {_said(kind, found)}")
        with contextlib.suppress(Failed):
            record["facts"] = child.ask("facts", settings.timeout)
    return record


def _said(kind: str, point: Mapping[str, Any]) -> str:
    if "error" in point:
        return point["error"]
    if kind == "depth":
        return f"{point['startup_seconds']:.1f} s to compile"
    return f"{point['clips_per_s']:.4g} clips/s"


def _measured(child: Child, case: Case, settings: Settings, devices: int = 1) -> dict[str, Any]:
    fields = {"case": dataclasses.asdict(case)}
    try:
        first = child.ask("prepare", settings.timeout, devices=devices, **fields)
        once = child.ask("time", settings.timeout, repeats=1)["seconds"][0]
        calls = timing.calls_per_round(once)
        rounds = [
            child.ask("time", settings.timeout, repeats=calls)["seconds"]
            for _ in range(settings.rounds)
        ]
        flops = child.ask("costs", settings.timeout, brief=True, **fields)["flops"]
    except Failed as error:
        return {"error": str(error)}
    seconds = timing.seconds_per_call(rounds)
    return {
        "seconds": dataclasses.asdict(seconds),
        "clips_per_s": case.batch_size / seconds.median,
        "flops_per_s": flops / seconds.median,
        "startup_seconds": max(0.0, first["first_call_seconds"] - seconds.median),
        "losses": first.get("losses"),
    }


def _devices(
    record: dict[str, Any], base: Case, settings: Settings, say: Callable[[str], None]
) -> dict[str, Any]:
    """Real devices: as many clips on each, timed. Fake ones: the same losses, nothing timed."""
    log = settings.logs / "sweep_devices.log"
    side = our_side(devices=_FAKE)
    with Child(OURS, side.command, log, side.environment) as child:
        facts = record["facts"] = child.ask("facts", settings.timeout)
        fake, available = facts["platform"] == "cpu", facts["devices"]
        record["fake"] = fake
        if fake:
            base = dataclasses.replace(base, batch_size=math.lcm(base.batch_size, available))
        for devices in [n for n in (1, 2, 4, 8, 16) if n <= available]:
            clips = base.batch_size * (1 if fake else devices)
            case = dataclasses.replace(base, batch_size=clips)
            found = {"value": devices, "way": ""}
            found |= (
                _losses(child, case, settings, devices)
                if fake
                else _measured(child, case, settings, devices)
            )
            record["points"].append(found)
            child.ask("drop", settings.timeout)
        if fake:
            _compare_losses(record["points"])
    for point in record["points"]:
        what = point.get("error") or (
            f"losses differ by {point['loss_difference']:.1e}" if fake else _said("", point)
        )
        say(f"devices {point['value']}: {what}")
    return record


def _losses(child: Child, case: Case, settings: Settings, devices: int) -> dict[str, Any]:
    try:
        fields = {"case": dataclasses.asdict(case), "devices": devices}
        return {"losses": child.ask("prepare", settings.timeout, **fields)["losses"]}
    except Failed as error:
        return {"error": str(error)}


def _compare_losses(points: Sequence[dict[str, Any]]) -> None:
    alone = next((point["losses"] for point in points if "losses" in point), [])
    for point in points:
        if "losses" in point:
            pairs = zip(alone, point["losses"], strict=True)
            point["loss_difference"] = max(abs(a - b) / abs(a) for a, b in pairs)


def sweep_table(record: Mapping[str, Any]) -> str:
    """Returns a sweep as a heading and a Markdown table."""
    kind, points = record["sweep"], record["points"]
    lines = [f"## {kind.capitalize()}: {record['title']}", ""]
    if record.get("fake"):
        lines += [
            "Devices faked on the cores of one host: they show that the losses are the same, and "
            "nothing of how clips/s scale, which only real devices can.",
            "",
        ]
        head = ["devices", "largest difference of the losses of three steps, relative"]
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
    rule = ["---:"] * len(head)
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in [head, rule, *rows])])


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
