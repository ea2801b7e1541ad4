"""A side of the benchmark in a process of its own: requests on stdin, answers on stdout.

    python -m aver_jax.bench.worker

One JSON object a line. `{"do": "prepare", "case": {...}}` makes a case ready (with "exchange", a
folder, it also writes what other sides need; "devices", "data" and "threads" as in
`work.make_ready`); `{"do": "time", "repeats": k}` gives the seconds of k calls; "facts" what the
process needed and where it runs; "costs" what the case costs at least ("brief": its FLOPs alone);
"rates" (with "dtypes") what the device can do; "drop" forgets the case; "quit" ends. An exception
is answered as `{"error": "one line"}`.
"""

import dataclasses
import gc
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.monitoring

from aver_jax import __version__
from aver_jax.bench.cases import case_of
from aver_jax.bench.worker import case_files, costs
from aver_jax.bench.worker.protocol import (
    Handlers,
    peak_resident_set,
    reset_peak_resident_set,
    serve,
    write_result,
)
from aver_jax.bench.worker.rates import measured_rates
from aver_jax.bench.worker.tasks import Work, make_ready
from aver_jax.runtime.cpu_allocator import computes_on_cpu, keep_freed_memory

SIDE = "aver_jax"
_COMPILING = "/jax/core/compile/backend_compile_duration"


class _Side:
    """The answers, one method for each request."""

    def __init__(self) -> None:
        self._work: Work | None = None
        self._case = None
        self._compiling = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **_: Any) -> None:
        if event == _COMPILING:
            self._compiling += seconds

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        self._case, self._compiling = case_of(request["case"]), 0.0
        data = Path(request["data"]) if request.get("data") else None
        threads = request.get("threads", 2)
        self._work = make_ready(self._case, request.get("devices", 1), data, threads)
        answer = {
            "first_call_seconds": self._work.first_call_seconds,
            "compile_seconds": self._compiling,
        }
        if request.get("exchange"):
            folder = Path(request["exchange"])
            case_files.write(folder, self._case, self._work, data, threads)
            write_result(folder, SIDE, self._work.result)
        if self._case.task == "train":
            answer["losses"] = self._work.result["losses"].tolist()
        gc.collect()
        reset_peak_resident_set()
        return answer | {"peak_bytes": peak_memory()[0]}

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        seconds = []
        for _ in range(request["repeats"]):
            began = time.perf_counter()
            self._work.call()
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}

    def facts(self, request: dict[str, Any]) -> dict[str, Any]:
        peak, kind = peak_memory()
        device = jax.devices()[0]
        versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
        versions = {"python": platform.python_version(), "aver_jax": __version__, **versions}
        return {
            "peak_bytes": peak,
            "peak_kind": kind,
            "device": device.device_kind,
            "platform": device.platform,
            "devices": jax.device_count(),
            "versions": versions,
        }

    def costs(self, request: dict[str, Any]) -> dict[str, Any]:
        case = case_of(request["case"])
        answer: dict[str, Any] = {"flops": costs.flops(case)}
        if request.get("brief"):
            return answer
        answer["bytes"] = costs.least_bytes(case)
        if case.task in ("train", "inference"):
            answer["xla_flops"] = costs.xla_flops(case)
        return answer

    def rates(self, request: dict[str, Any]) -> dict[str, Any]:
        return dataclasses.asdict(measured_rates(request["dtypes"]))

    def drop(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._work:
            self._work.close()
        self._work = None
        jax.clear_caches()
        gc.collect()
        return {}


def peak_memory() -> tuple[int, str]:
    """Returns the most bytes held, and of what.

    Of an accelerator "device memory", since the process began; else "resident set", since
    `resident_set.reset_peak` where the system has that.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"], "device memory"
    return peak_resident_set(), "resident set"


def _start() -> Handlers:
    if computes_on_cpu():
        keep_freed_memory()  # as the jobs do
    # Compile time is reported, so nothing may come from an earlier run.
    jax.config.update("jax_enable_compilation_cache", False)
    side = _Side()
    names = ("prepare", "time", "facts", "costs", "rates", "drop")
    return {name: getattr(side, name) for name in names}


if __name__ == "__main__":
    serve(_start)
    # Threads of the input pipeline must not hold the parent up.
    os._exit(0)
