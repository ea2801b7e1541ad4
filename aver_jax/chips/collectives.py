"""The collectives of a compiled program: how many, of how many bytes, and what the links need."""

import collections
import dataclasses
from collections.abc import Iterable

from aver_jax.chips.hlo.costs import Cost

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


def collectives(rows: Iterable[Cost], devices: int, link: float) -> list[Collectives]:
    """Returns the collectives by kind, the slowest first.

    Args:
      rows: of a program (`hlo.costs.costs`).
      devices: that take part.
      link: bytes/s that a device sends.
    """
    counts: dict[str, int] = collections.Counter()
    moved: dict[str, float] = collections.Counter()
    for row in rows:
        if row.collective in _SENT:
            counts[row.collective] += row.runs
            moved[row.collective] += row.sent
    found = [
        Collectives(kind, counts[kind], moved[kind], moved[kind] * _SENT[kind](devices) / link)
        for kind in counts
    ]
    return sorted(found, key=lambda each: -each.seconds)
