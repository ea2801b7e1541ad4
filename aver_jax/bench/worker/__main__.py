"""The worker process of aver_jax: requests on stdin, replies on stdout, one JSON object a line.

    python -m aver_jax.bench.worker

prepare   {"case": {...}} gets a case ready, with "devices", "data" and "threads" as in
          `tasks.prepare_case`; with "folder" it also writes the files for other implementations
time      {"repeats": k} returns the seconds of k calls
metadata  returns peak memory, device and versions
costs     {"case": {...}} returns FLOPs and bytes of a call; with "brief", FLOPs only
rates     {"dtypes": [...]} returns the measured rates of the device
drop      forgets the case
quit      ends the process

An exception is returned as {"error": "one line"}.
"""

import dataclasses
import gc
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.monitoring

from aver_jax import __version__
from aver_jax.bench import roofline
from aver_jax.bench.cases import case_from_dict
from aver_jax.bench.timing import seconds_of_calls
from aver_jax.bench.worker import protocol, tasks
from aver_jax.bench.worker.case_files import write_outputs
from aver_jax.runtime.cpu_allocator import computes_on_cpu, keep_freed_memory

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class Worker:
    """The handlers, one method per request."""

    def __init__(self) -> None:
        self.prepared: tasks.PreparedCase | None = None
        self._compile_seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add_compile_seconds)

    def _add_compile_seconds(self, event: str, seconds: float, **_: Any) -> None:
        if event == _COMPILE_EVENT:
            self._compile_seconds += seconds

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Gets a case ready; see the module."""
        case, self._compile_seconds = case_from_dict(request["case"]), 0.0
        data = Path(request["data"]) if request.get("data") else None
        threads = request.get("threads", 2)
        prepared = tasks.prepare_case(case, request.get("devices", 1), data, threads)
        self.prepared = prepared
        reply = {
            "first_call_seconds": prepared.first_call_seconds,
            "compile_seconds": self._compile_seconds,
        }
        if request.get("folder"):
            folder = Path(request["folder"])
            tasks.case_files(folder, case, prepared, data, threads).write()
            write_outputs(folder, request["implementation"], prepared.outputs)
        if case.task == "train":
            reply["losses"] = prepared.outputs["losses"].tolist()
        gc.collect()
        protocol.reset_peak_memory()
        return reply | {"peak_bytes": peak_memory()[0]}

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the seconds of some calls."""
        return {"seconds": seconds_of_calls(self.prepared.call, request["repeats"])}

    def metadata(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns peak memory, device and versions."""
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
        """Returns FLOPs and bytes of a call."""
        case = case_from_dict(request["case"])
        reply: dict[str, Any] = {"flops": roofline.flops(case)}
        if request.get("brief"):
            return reply
        reply["bytes"] = roofline.least_bytes(case)
        if case.task in ("train", "inference"):
            reply["xla_flops"] = roofline.xla_flops(case)
        return reply

    def rates(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the measured rates of the device."""
        return dataclasses.asdict(roofline.measured_rates(request["dtypes"]))

    def drop(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forgets the case."""
        if self.prepared:
            self.prepared.close()
        self.prepared = None
        jax.clear_caches()
        gc.collect()
        return {}

    def handlers(self) -> protocol.Handlers:
        """Returns the methods by request."""
        names = ("prepare", "time", "metadata", "costs", "rates", "drop")
        return {name: getattr(self, name) for name in names}


def peak_memory() -> tuple[int, str]:
    """Returns the peak memory in bytes, and of what.

    "device memory" of an accelerator, since the process began; else "resident set", since
    `protocol.reset_peak_memory`.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"], "device memory"
    return protocol.peak_memory(), "resident set"


def start(worker: type[Worker] = Worker) -> protocol.Handlers:
    """Sets the process up for timing and returns the handlers of a worker."""
    if computes_on_cpu():
        keep_freed_memory()  # as the `aver` commands do
    # Compile time is reported, so nothing may come from an earlier run.
    jax.config.update("jax_enable_compilation_cache", False)
    return worker().handlers()


if __name__ == "__main__":
    protocol.serve(start)
    # Threads of the input pipeline must not delay the exit.
    os._exit(0)
