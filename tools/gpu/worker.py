"""The worker of `aver_jax.bench.worker`, whose "costs" are those of the very program that it times.

    python -m tools.gpu.worker

costs   {"case": {...}} returns "flops" of a call; "device_seconds", the median of calls whose batch
        is on the device already; "predicted", what the compiled program's kernels cost at the rates
        of this GPU (of an H100 where there is none, which makes it a rehearsal)
"""

import os
import statistics
from typing import Any

import jax

from aver_jax.bench import roofline
from aver_jax.bench.cases import case_from_dict
from aver_jax.bench.timing import calls_per_round, seconds_of_calls
from aver_jax.bench.worker import protocol
from aver_jax.bench.worker.__main__ import Worker, start
from aver_jax.chips.catalog import CHIPS, Target, chip_of_device
from aver_jax.chips.estimate import Estimate, estimate
from aver_jax.chips.programs import is_ours

# The costliest lines of code that are named.
_SOURCES = 10
_ROUNDS = 5


class CountingWorker(Worker):
    """The handlers; "costs" is another."""

    def costs(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns what the program of the case that is ready costs."""
        case, call = case_from_dict(request["case"]), self.prepared.on_device
        call()
        repeats = _ROUNDS * calls_per_round(seconds_of_calls(call, 1)[0])
        needed = roofline.flops(case)
        reply = {
            "flops": needed,
            "bytes": {},
            "device_seconds": statistics.median(seconds_of_calls(call, repeats)),
        }
        kind = jax.devices()[0].device_kind
        rehearsal = jax.default_backend() == "cpu"
        chip = CHIPS["h100"] if rehearsal else chip_of_device(kind)
        if chip is None:
            return reply | {"note": f"the rates of {kind} are not known"}
        compiled = self.prepared.lowered().compile()
        held = {"arguments": compiled.memory_analysis().argument_size_in_bytes}
        target = Target(chip, 1, "1x1x1")
        found = estimate(compiled, target, needed, case.batch_size, case.dtype, held, is_ours)
        return reply | {"predicted": _fields(found, chip.name)}


def _fields(found: Estimate, chip: str) -> dict[str, Any]:
    sources = [
        {
            "place": s.place,
            "path": s.path or s.what,
            "ms": 1e3 * s.seconds,
            "gigabytes": s.bytes / 1e9,
        }
        for s in found.sources[:_SOURCES]
    ]
    return {
        "chip": chip,
        "kind": found.kind,
        "seconds": found.seconds,
        "floor": found.floor,
        "needed": found.needed,
        "done": found.done,
        "bytes": found.bytes,
        "memory": sum(found.memory.values()),
        "uncounted": found.uncounted,
        "sources": sources,
    }


if __name__ == "__main__":
    protocol.serve(lambda: start(CountingWorker))
    os._exit(0)
