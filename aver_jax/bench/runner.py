"""Cases run by their sides: made ready, compared, timed in turn; every case in fresh processes."""

import contextlib
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aver_jax.bench import timing
from aver_jax.bench.agreement import Disagreement, checked_agreement
from aver_jax.bench.cases import Case
from aver_jax.bench.subprocess_worker import Child, Failed
from aver_jax.bench.worker.protocol import read_result

#: The side that the others are compared with.
OURS = "aver_jax"
# Batches of an input pipeline that are timed, behind those it had ready.
_FLOWING = 10
# Signs of an accelerator that holds one side's memory, but not those of all at a time.
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory", "Out of memory")


@dataclasses.dataclass(frozen=True)
class Side:
    """Code that does the same work, in processes of its own.

    Attributes:
      name: "aver_jax", "torch_tuned", ...
      command: words that start its worker.
      takes: whether it does a case; others stay empty in the table.
      environment: variables set for its worker.
      folder: its worker runs in.
      clips: of a call, where it is to do fewer than the batch.
    """

    name: str
    command: tuple[str, ...]
    takes: Callable[[Case], bool] = lambda case: True
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: Path | None = None
    clips: int | None = None


def our_side(devices: int = 0) -> Side:
    """Returns aver_jax' side; with `devices` > 0, a CPU host acts as that many devices."""
    # Without preallocation sides share an accelerator's memory.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if devices:
        flags = os.environ.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    command = (sys.executable, "-m", "aver_jax.bench.worker")
    return Side(OURS, command, environment=environment)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long and on what.

    Attributes:
      rounds: at most, of every case.
      logs: folder for what workers print.
      data: prepared dataset of the input cases.
      threads: that make batches.
      timeout: seconds that an answer may take.
      deadline: no side is waited for to be ready after it, on the clock of `time.monotonic`.
    """

    rounds: int
    logs: Path
    data: Path | None = None
    threads: int = 2
    timeout: float = 900.0
    deadline: float = float("inf")

    def patience(self) -> float:
        """Returns how many seconds a side may take now to be ready."""
        return max(0.0, min(self.timeout, self.deadline - time.monotonic()))


def run_case(case: Case, sides: Sequence[Side], settings: Settings, budget: float) -> dict:
    """Runs a case and returns its record, of JSON types; failures are in it, not raised.

    Args:
      case: what to do.
      sides: `OURS` first; those that take the case do it.
      settings: how.
      budget: seconds for all of it; at least five rounds (or all) are timed whatever they take.

    Returns:
      "case"; "sides": side -> what was measured, or "error", or "skip"; "ratios": side -> spread of
      our clips/s over its; "parity": side -> what was compared; "costs"; "alternated", False where
      memory made sides run one after the other; "error", a line, or None; "seconds" of all.
    """
    began = time.monotonic()
    sides = [side for side in sides if side.takes(case)]
    record = _attempt(case, sides, settings, began + budget, together=True)
    if record.pop("crowded"):
        record = _attempt(case, sides, settings, began + budget, together=False)
        record.pop("crowded")
    return record | {"seconds": time.monotonic() - began}


def _attempt(
    case: Case, sides: Sequence[Side], settings: Settings, deadline: float, together: bool
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "case": dataclasses.asdict(case),
        "sides": {},
        "ratios": {},
        "parity": {},
        "costs": {},
        "alternated": together,
        "error": None,
        "crowded": False,
    }
    groups = [sides] if together else [[side] for side in sides]
    rounds: timing.Rounds = {}
    with tempfile.TemporaryDirectory(prefix="aver_bench_") as folder:
        for number, group in enumerate(groups):
            left = (deadline - time.monotonic()) / (len(groups) - number)
            try:
                rounds |= _timed(
                    case, group, settings, Path(folder), record, time.monotonic() + left
                )
            except (Failed, Disagreement) as error:
                record["error"] = str(error)
                break
            if record["crowded"]:
                return record
    _add_ratios(record, rounds)
    return record


def _timed(
    case: Case,
    sides: Sequence[Side],
    settings: Settings,
    exchange: Path,
    record: dict[str, Any],
    deadline: float,
) -> timing.Rounds:
    """Seconds of the calls of some sides, which live at the same time; fills their records."""
    with contextlib.ExitStack() as stack:
        children = {
            # All start now: while one is made ready, the others import their libraries.
            side.name: stack.enter_context(
                Child(
                    side.name,
                    side.command,
                    settings.logs / f"{case.name}.{side.name}.log",
                    side.environment,
                    side.folder,
                )
            )
            for side in sides
        }
        for side in sides:
            _make_ready(case, side, children, settings, exchange, record)
            if record["crowded"]:
                return {}
        ready = {name: child for name, child in children.items() if _is_ready(record, name)}

        def calls_of(child: Child) -> Callable[[int], list[float]]:
            def seconds(repeats: int) -> list[float]:
                return child.ask("time", settings.timeout, repeats=repeats)["seconds"]

            return (lambda _: _flow(seconds, settings.threads)) if case.task == "input" else seconds

        timed = {name: calls_of(child) for name, child in ready.items()}
        # One more call of each: it warms up, and tells how many make a round.
        calls = {name: timing.calls_per_round(call(1)[0]) for name, call in timed.items()}
        left = deadline - time.monotonic()
        rounds = timing.alternated(timed, settings.rounds, left, calls)
        for name, child in ready.items():
            facts = child.ask("facts", settings.timeout)
            record["sides"][name] |= facts | _measured(rounds[name], record["sides"][name]["clips"])
        if OURS in ready:
            record["costs"] = ready[OURS].ask(
                "costs", settings.timeout, case=dataclasses.asdict(case)
            )
        return rounds


def _flow(seconds: Callable[[int], list[float]], threads: int) -> list[float]:
    """Mean seconds of a batch of an input pipeline whose `threads` work ahead.

    While other sides had their turn it filled its buffers, whose batches take no time; and batches
    of several workers come in bursts, of which the mean tells the rate, not the median.
    """
    in_store = 2 * threads + 2  # in the buffer, and one each under way
    return [statistics.mean(seconds(in_store + _FLOWING)[in_store:])]


def _is_ready(record: dict[str, Any], name: str) -> bool:
    return not {"error", "skip"} & set(record["sides"][name])


def _make_ready(
    case: Case,
    side: Side,
    children: Mapping[str, Child],
    settings: Settings,
    exchange: Path,
    record: dict[str, Any],
) -> None:
    """Prepares one side and compares its answer; raises where the whole case must stop."""
    request: dict[str, Any] = {
        "case": dataclasses.asdict(case),
        "exchange": str(exchange),
        "side": side.name,
        "data": str(settings.data) if settings.data else None,
        "threads": settings.threads,
    }
    if side.clips:
        request["clips"] = min(side.clips, case.batch_size)
    try:
        answer = children[side.name].ask("prepare", settings.patience(), **request)
    except Failed as error:
        record["crowded"] = len(children) > 1 and _is_out_of_memory(str(error))
        if side.name == OURS and not record["crowded"]:
            raise  # nothing to compare with
        record["sides"][side.name] = {"error": str(error)}
        return
    # Of the ways that a side tried the fastest may be the one that did not fit.
    record["crowded"] = len(children) > 1 and _is_out_of_memory(answer.get("notes") or "")
    record["sides"][side.name] = {"clips": case.batch_size, **answer}
    if side.name != OURS and "skip" not in answer:
        ours, theirs = (read_result(exchange, name) for name in (OURS, side.name))
        try:
            record["parity"][side.name] = checked_agreement(
                case.task, case.dtype, ours, theirs, side.name
            )
        except Disagreement as error:
            record["sides"][side.name]["error"] = str(error)
            raise


def _is_out_of_memory(text: str) -> bool:
    return any(sign in text for sign in _OUT_OF_MEMORY)


def _measured(rounds: Sequence[Sequence[float]], clips: int) -> dict[str, Any]:
    seconds = timing.seconds_per_call(rounds)
    return {
        "rounds": [list(calls) for calls in rounds],
        "seconds": dataclasses.asdict(seconds),
        "clips_per_s": clips / seconds.median,
    }


def _add_ratios(record: dict[str, Any], rounds: timing.Rounds) -> None:
    for name in rounds:
        if name != OURS and OURS in rounds:
            clips = [record["sides"][side]["clips"] for side in (OURS, name)]
            found = timing.ratio(rounds[OURS], rounds[name], *clips)
            record["ratios"][name] = dataclasses.asdict(found)
