"""The physical floor of a call: measured rates of the device, and the time they leave.

A roofline (Williams, Waterman & Patterson 2009) with the device's own measured rates in the place
of its data sheet's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rates:
    """What one device does at best.

    Attributes:
      matmul: FLOP/s of a large matrix product by dtype, of random numbers: zeros draw less power
        and run faster on a GPU.
      copy: bytes/s, read and written together.
    """

    matmul: dict[str, float]
    copy: float


@dataclasses.dataclass(frozen=True)
class Floor:
    """The least time of a call.

    Attributes:
      seconds: the larger of the two below.
      compute: seconds of its FLOPs at the matmul rate.
      memory: seconds of its bytes at the copy rate.
      binds: "FLOPs" or "bytes", whichever takes longer.
    """

    seconds: float
    compute: float
    memory: float
    binds: str


def floor_of(flops: float, moved: float, dtype: str, rates: Rates, devices: int = 1) -> Floor:
    """Returns the floor of a call that needs that many FLOPs and moves that many bytes."""
    compute = flops / (rates.matmul[dtype] * devices)
    memory = moved / (rates.copy * devices)
    return Floor(
        seconds=max(compute, memory),
        compute=compute,
        memory=memory,
        binds="FLOPs" if compute >= memory else "bytes",
    )


def rates_of(fields: Mapping[str, Any]) -> Rates:
    """Returns the rates of `dataclasses.asdict`, also after a trip through JSON."""
    return Rates(dict(fields["matmul"]), fields["copy"])


def faster(one: Rates, other: Rates) -> Rates:
    """Returns the better of two measurements of each rate."""
    return Rates(
        {dtype: max(rate, other.matmul[dtype]) for dtype, rate in one.matmul.items()},
        max(one.copy, other.copy),
    )
