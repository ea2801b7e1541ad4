"""Runs a case: implementations in fresh processes are prepared, compared and timed in turn."""

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
from aver_jax.bench.worker.case_files import read_outputs
from aver_jax.bench.worker.protocol import WorkerError, WorkerProcess

#: The implementation that the others are compared with.
OURS = "aver_jax"
# Timed batches of an input pipeline, after the prefetched ones.
_TIMED_BATCHES = 10
# Messages of an accelerator that has memory for one implementation, but not for all at once.
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory", "Out of memory")


@dataclasses.dataclass(frozen=True)
class Implementation:
    """Code that does the cases, in a worker process of its own.

    Attributes:
      name: "aver_jax", "torch_tuned", ...
      command: words that start its worker.
      supports: whether it does a case.
      environment: variables set for its worker.
      folder: working directory of its worker.
      clips: clips per call, if fewer than the batch.
    """

    name: str
    command: tuple[str, ...]
    supports: Callable[[Case], bool] = lambda case: True
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: Path | None = None
    clips: int | None = None

    def start(self, log: Path) -> WorkerProcess:
        """Returns a new worker, whose stderr goes to `log`."""
        return WorkerProcess(self.name, self.command, log, self.environment, self.folder)


def our_implementation(devices: int = 0) -> Implementation:
    """Returns aver_jax; with `devices` > 0, a CPU host acts as that many devices."""
    # Implementations share an accelerator's memory, so none may preallocate it.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if devices:
        flags = os.environ.get("XLA_FLAGS", "")
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    command = (sys.executable, "-m", "aver_jax.bench.worker")
    return Implementation(OURS, command, environment=environment)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How cases are run.

    Attributes:
      rounds: maximum timing rounds of every case.
      logs: folder for the stderr of workers.
      data: prepared dataset of the input cases.
      threads: data-loading threads.
      timeout: seconds that a reply may take.
      deadline: when preparation must be done, on the clock of `time.monotonic`.
    """

    rounds: int
    logs: Path
    data: Path | None = None
    threads: int = 2
    timeout: float = 900.0
    deadline: float = float("inf")

    def preparation_seconds(self) -> float:
        """Returns how many seconds a preparation that starts now may take."""
        return max(0.0, min(self.timeout, self.deadline - time.monotonic()))


def run_case(
    case: Case, implementations: Sequence[Implementation], settings: Settings, budget: float
) -> dict[str, Any]:
    """Runs a case and returns its record, of JSON types; failures are recorded, not raised.

    Args:
      case: the case.
      implementations: `OURS` first; those that do not support the case are left out.
      settings: see `Settings`.
      budget: seconds for everything; at least five rounds (or all) are timed regardless.

    Returns:
      "case"; "sides": implementation -> measurements, or "error", or "skip"; "ratios":
      implementation -> spread of our clips/s over its; "parity": implementation -> what was
      compared; "costs"; "alternated", False where memory forced implementations to run one after
      the other; "error", a line, or None; "seconds" in total.
    """
    began = time.monotonic()
    chosen = [each for each in implementations if each.supports(case)]
    record = _attempt(case, chosen, settings, began + budget, together=True)
    if record.pop("crowded"):
        record = _attempt(case, chosen, settings, began + budget, together=False)
        record.pop("crowded")
    return record | {"seconds": time.monotonic() - began}


def _attempt(
    case: Case,
    implementations: Sequence[Implementation],
    settings: Settings,
    deadline: float,
    together: bool,
) -> dict[str, Any]:
    """Returns the record, with "crowded": whether workers ran out of the memory that they share."""
    record = new_record(case, together)
    groups = [implementations] if together else [[each] for each in implementations]
    rounds: timing.Rounds = {}
    with tempfile.TemporaryDirectory(prefix="aver_bench_") as folder:
        for number, group in enumerate(groups):
            left = (deadline - time.monotonic()) / (len(groups) - number)
            end = time.monotonic() + left
            try:
                rounds |= timed_group(case, group, settings, Path(folder), record, end)
            except (WorkerError, Disagreement) as error:
                record["error"] = str(error)
                break
            if record["crowded"]:
                return record
    add_ratios(record, rounds)
    return record


def new_record(case: Case, together: bool) -> dict[str, Any]:
    """Returns the record of a case that nothing has run yet; see `run_case`."""
    return {
        "case": dataclasses.asdict(case),
        "sides": {},
        "ratios": {},
        "parity": {},
        "costs": {},
        "alternated": together,
        "error": None,
        "crowded": False,
    }


def timed_group(
    case: Case,
    implementations: Sequence[Implementation],
    settings: Settings,
    folder: Path,
    record: dict[str, Any],
    deadline: float,
) -> timing.Rounds:
    """Times the calls of implementations that run at the same time, and returns them.

    Args:
      case, settings: as in `run_case`.
      implementations: a group; those after the group of `OURS` find its files in `folder`.
      folder: for the files of the case.
      record: of `new_record`; filled.
      deadline: on the clock of `time.monotonic`, for timing.

    Raises:
      WorkerError: `OURS` fails.
      Disagreement: outputs differ too much from those of `OURS`.
    """
    with contextlib.ExitStack() as stack:
        # All start now: while one prepares, the others import their libraries.
        workers = {
            each.name: stack.enter_context(
                each.start(settings.logs / f"{case.name}.{each.name}.log")
            )
            for each in implementations
        }
        for each in implementations:
            _prepare(case, each, workers, settings, folder, record)
            if record["crowded"]:
                return {}
        ready = {
            name: worker
            for name, worker in workers.items()
            if not {"error", "skip"} & set(record["sides"][name])
        }

        def calls_of(worker: WorkerProcess) -> Callable[[int], list[float]]:
            def seconds(repeats: int) -> list[float]:
                return worker.ask("time", settings.timeout, repeats=repeats)["seconds"]

            if case.task == "input":
                return lambda _: _steady_seconds(seconds, settings.threads)
            return seconds

        timed = {name: calls_of(worker) for name, worker in ready.items()}
        # One more warm-up call of each, which also tells how many calls make a round.
        calls = {name: timing.calls_per_round(call(1)[0]) for name, call in timed.items()}
        left = deadline - time.monotonic()
        rounds = timing.alternated(timed, settings.rounds, left, calls)
        for name, worker in ready.items():
            measured = record["sides"][name]
            measured |= worker.ask("metadata", settings.timeout)
            measured |= _measurements(rounds[name], measured["clips"])
        if OURS in ready:
            fields = dataclasses.asdict(case)
            record["costs"] = ready[OURS].ask("costs", settings.timeout, case=fields)
        return rounds


def _steady_seconds(seconds: Callable[[int], list[float]], threads: int) -> list[float]:
    """Returns the mean seconds of a batch of an input pipeline with `threads` that prefetch.

    Prefetched batches take no time and are left out. The others come in bursts, one per thread, so
    their mean gives the rate, not their median.
    """
    prefetched = 2 * threads + 2  # in the buffer, and one in progress per thread
    return [statistics.mean(seconds(prefetched + _TIMED_BATCHES)[prefetched:])]


def _prepare(
    case: Case,
    implementation: Implementation,
    workers: Mapping[str, WorkerProcess],
    settings: Settings,
    folder: Path,
    record: dict[str, Any],
) -> None:
    """Prepares one implementation and compares its outputs; raises if the case must stop."""
    name = implementation.name
    request: dict[str, Any] = {
        "case": dataclasses.asdict(case),
        "folder": str(folder),
        "implementation": name,
        "data": str(settings.data) if settings.data else None,
        "threads": settings.threads,
    }
    if (seconds := settings.preparation_seconds()) < settings.timeout:
        request["seconds"] = seconds
    if implementation.clips:
        request["clips"] = min(implementation.clips, case.batch_size)
    try:
        reply = workers[name].ask("prepare", settings.preparation_seconds(), **request)
    except WorkerError as error:
        record["crowded"] = len(workers) > 1 and _is_out_of_memory(str(error))
        if name == OURS and not record["crowded"]:
            raise  # nothing to compare with
        record["sides"][name] = {"error": str(error)}
        return
    # The fastest of the variants that it tried may be the one that ran out of memory.
    record["crowded"] = len(workers) > 1 and _is_out_of_memory(reply.get("notes") or "")
    record["sides"][name] = {"clips": case.batch_size, **reply}
    if name != OURS and "skip" not in reply:
        ours, theirs = (read_outputs(folder, each) for each in (OURS, name))
        try:
            found = checked_agreement(case.task, case.dtype, ours, theirs, name)
        except Disagreement as error:
            record["sides"][name]["error"] = str(error)
            raise
        record["parity"][name] = found


def _is_out_of_memory(text: str) -> bool:
    return any(message in text for message in _OUT_OF_MEMORY)


def _measurements(rounds: Sequence[Sequence[float]], clips: int) -> dict[str, Any]:
    seconds = timing.seconds_per_call(rounds)
    return {
        "rounds": [list(calls) for calls in rounds],
        "seconds": dataclasses.asdict(seconds),
        "clips_per_s": clips / seconds.median,
    }


def add_ratios(record: dict[str, Any], rounds: timing.Rounds) -> None:
    """Puts the ratios of the speeds into a record; `rounds` are those of all its groups."""
    for name in rounds:
        if name != OURS and OURS in rounds:
            clips = [record["sides"][each]["clips"] for each in (OURS, name)]
            found = timing.ratio(rounds[OURS], rounds[name], *clips)
            record["ratios"][name] = dataclasses.asdict(found)
