"""A torch side of the benchmark in a process of its own: requests on stdin, answers on stdout.

    python -m tools.baseline.worker

One JSON object a line, as `aver_jax.bench.worker` does it: `{"do": "prepare", "case": {...},
"exchange": FOLDER, "side": "torch_tuned"}` makes a case ready from what aver_jax wrote into the
folder and leaves `result_SIDE.npz` there (with "clips": n, torch_hooks handles n clips a call);
`{"do": "time", "repeats": k}` gives the seconds of k blocking calls; "facts" what the process
needed and where it runs; "drop" forgets the case; "quit" ends.
"""

import gc
import platform
import time
from importlib import metadata
from typing import Any

import torch

from aver_jax.bench.worker.protocol import (
    Handlers,
    peak_resident_set,
    reset_peak_resident_set,
    serve,
    write_result,
)
from aver_jax.runtime.cpu_allocator import keep_freed_memory
from tools.baseline import exchange
from tools.baseline.sides import NotDone, Ready, make_ready


class Worker:
    """The answers, one method for each request."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._ready: Ready | None = None

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make a case ready; see the module."""
        found = exchange.read(request["exchange"])
        try:
            ready = make_ready(request["side"], found, self.device, request.get("clips"))
        except NotDone as reason:
            return {"skip": str(reason)}
        self._ready = ready
        write_result(found.folder, request["side"], ready.result)
        # What was tried and not kept is no part of what the side needs.
        gc.collect()
        reset_peak(self.device)
        ready.call()
        choice = ready.choice
        compiled = choice.name.startswith("compiled")
        usual = choice.seconds.get(choice.name, 0.0)
        return {
            "first_call_seconds": choice.first_call_seconds,
            "compile_seconds": choice.first_call_seconds - usual if compiled else None,
            "peak_bytes": peak_memory(self.device)[0],
            "clips": ready.clips,
            "mode": choice.name,
            "notes": choice.sentence(),
        }

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time calls one by one."""
        if self._ready is None:
            raise ValueError("no case is ready; ask to prepare one first")
        seconds = []
        for _ in range(request["repeats"]):
            began = time.perf_counter()
            self._ready.call()
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}

    def facts(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say what the process needed and where it runs."""
        peak, kind = peak_memory(self.device)
        cuda = self.device.type == "cuda"
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        versions["transformers"] = metadata.version("transformers")
        if cuda:
            versions |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
        return {
            "peak_bytes": peak,
            "peak_kind": kind,
            "device": torch.cuda.get_device_name() if cuda else f"cpu ({platform.machine()})",
            "platform": "gpu" if cuda else "cpu",
            "versions": versions,
        }

    def drop(self, request: dict[str, Any]) -> dict[str, Any]:
        """Forget the case."""
        self._ready = None
        torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {}


def reset_peak(device: torch.device) -> None:
    """Let peaks of memory begin anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak_resident_set()


def peak_memory(device: torch.device) -> tuple[int, str]:
    """Return the most bytes held since `reset_peak`, and of what."""
    if device.type == "cuda":
        # What was reserved: the pool of a CUDA graph counts as free once it is captured.
        return torch.cuda.max_memory_reserved(), "device memory"
    return peak_resident_set(), "resident set"


def settings_of_an_expert() -> None:
    """Set what PyTorch leaves slow by default and what changes no result that matters here."""
    # Float32 products in TF32 on GPUs that have it, as XLA does; no effect on a CPU.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 64
    # Compile time is reported, so nothing may come from an earlier run.
    torch._inductor.config.force_disable_caches = True


def _start() -> Handlers:
    if not torch.cuda.is_available():
        keep_freed_memory()  # as aver_jax does: both sides' allocators are alike
    settings_of_an_expert()
    worker = Worker()
    return {name: getattr(worker, name) for name in ("prepare", "time", "facts", "drop")}


if __name__ == "__main__":
    serve(_start)
