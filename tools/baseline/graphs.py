"""A step as a CUDA graph: launched at once, where Python would launch its kernels one by one."""

from collections.abc import Callable

import torch
from torch import Tensor

from tools.baseline.batches import DeviceBatch, HostBatch

_WARM_UP = 3


def replayed(step: Callable[[DeviceBatch], Tensor], batch: HostBatch) -> Callable[[], Tensor]:
    """Returns a call that copies the host batch to its place and replays the step there.

    Args:
      step: from a batch on the device to its result; has run before, so that all is compiled.
      batch: without sound, whose packing is another for every batch.

    Raises:
      RuntimeError: no CUDA, or something in the step cannot be captured.
    """
    place = batch.on_device()
    if place.packing is not None or batch.device.type != "cuda":
        raise RuntimeError("no graph: there is none of packed sequences, nor on a CPU")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step(place)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step(place)

    def call() -> Tensor:
        batch.into(place)
        graph.replay()
        return result

    return call
