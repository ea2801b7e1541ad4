"""The collectives of a compiled program: how many, of how many bytes, and what the links need."""

import collections
import dataclasses

from aver_jax.chips.hlo.costs import Cost
from aver_jax.chips.hlo.text import HloModule

# Of n devices in a ring: how often a device sends the bytes of the result, as a share.
_SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    # Its result is one part of n of what goes around.
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}


@dataclasses.dataclass(frozen=True)
class Collectives:
    """All collectives of a kind.

    Attributes:
      kind: "all-reduce" and so on.
      count: how many a device runs in one run of the program.
      bytes: of their results on a device, all together.
      seconds: to send them, in a ring, over all links of a device; latencies do not count.
    """

    kind: str
    count: int
    bytes: float
    seconds: float


def collectives(
    module: HloModule, rows: tuple[Cost, ...], devices: int, link: float
) -> list[Collectives]:
    """Returns the collectives by kind, the slowest first.

    Args:
      module: the program.
      rows: its `costs`.
      devices: that take part.
      link: bytes/s that a device sends.
    """
    shapes = {
        each.name: each.shape
        for computation in module.computations.values()
        for each in computation.instructions.values()
    }
    counts: dict[str, int] = collections.Counter()
    moved: dict[str, float] = collections.Counter()
    for row in rows:
        kind = next((kind for kind in _SENT if row.kind.startswith(kind)), None)
        if kind is None:
            continue
        shape = shapes[row.name]
        # A start gives its operands and its results.
        size = shape.bytes / 2 if row.kind.endswith("-start") and shape.parts else shape.bytes
        counts[kind] += row.runs
        moved[kind] += row.runs * size
    found = [
        Collectives(kind, counts[kind], moved[kind], moved[kind] * _SENT[kind](devices) / link)
        for kind in counts
    ]
    return sorted(found, key=lambda each: -each.seconds)
