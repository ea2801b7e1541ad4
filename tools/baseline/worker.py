"""The worker process of the PyTorch implementations: requests on stdin, replies on stdout.

    python -m tools.baseline.worker

One JSON object a line, as in `aver_jax.bench.worker`: "prepare" with "folder" and "implementation"
gets a case ready from the files that aver_jax wrote into the folder, and writes outputs there (with
"clips": n, torch_hooks does n clips per call; with "seconds": s, variants that would take longer
are not tried); "time", "metadata", "drop" and "quit".
"""

import gc
import platform
import time
from importlib import metadata
from typing import Any

import torch

from aver_jax.bench.timing import seconds_of_calls
from aver_jax.bench.worker import protocol
from aver_jax.bench.worker.case_files import CaseFiles, write_outputs
from aver_jax.runtime.cpu_allocator import keep_freed_memory
from tools.baseline.implementations import NotSupported, Prepared, prepare_case

# Of the seconds that a preparation may take, for the choice among variants.
_FOR_CHOICE = 0.8


class Worker:
    """The handlers, one method per request."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._prepared: Prepared | None = None

    def prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        """Gets a case ready; see the module."""
        files, name = CaseFiles.read(request["folder"]), request["implementation"]
        try:
            # What is left then is for the outputs that are compared.
            until = time.monotonic() + _FOR_CHOICE * request.get("seconds", float("inf"))
            prepared = prepare_case(name, files, self.device, request.get("clips"), until)
        except NotSupported as reason:
            return {"skip": str(reason)}
        self._prepared = prepared
        write_outputs(files.folder, name, prepared.outputs)
        # Memory of the variants that were not chosen does not count.
        gc.collect()
        reset_peak(self.device)
        prepared.call()
        choice = prepared.choice
        compiled = choice.name.startswith("compiled")
        usual = choice.seconds.get(choice.name, 0.0)
        return {
            "first_call_seconds": choice.first_call_seconds,
            "compile_seconds": choice.first_call_seconds - usual if compiled else None,
            "peak_bytes": peak_memory(self.device)[0],
            "clips": prepared.clips,
            "mode": choice.name,
            "notes": choice.sentence(),
        }

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the seconds of some calls."""
        if self._prepared is None:
            raise ValueError("no case is ready; send prepare first")
        return {"seconds": seconds_of_calls(self._prepared.call, request["repeats"])}

    def metadata(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns peak memory, device and versions."""
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
        """Forgets the case."""
        self._prepared = None
        torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {}


def reset_peak(device: torch.device) -> None:
    """Resets `peak_memory`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        protocol.reset_peak_memory()


def peak_memory(device: torch.device) -> tuple[int, str]:
    """Returns the peak memory in bytes since `reset_peak`, and of what."""
    if device.type == "cuda":
        # Reserved memory, since the pool of a CUDA graph counts as free once it is captured.
        return torch.cuda.max_memory_reserved(), "device memory"
    return protocol.peak_memory(), "resident set"


def set_fast_defaults() -> None:
    """Turns on what PyTorch leaves off by default and an expert would use."""
    # Float32 products in TF32 on GPUs that have it, as XLA does; no effect on a CPU.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 64
    # Compile time is reported, so nothing may come from an earlier run.
    torch._inductor.config.force_disable_caches = True


def _start() -> protocol.Handlers:
    if not torch.cuda.is_available():
        keep_freed_memory()  # as the worker of aver_jax does
    set_fast_defaults()
    worker = Worker()
    return {name: getattr(worker, name) for name in ("prepare", "time", "metadata", "drop")}


if __name__ == "__main__":
    protocol.serve(_start)
