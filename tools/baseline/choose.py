"""Several ways to do the same work, timed in turn on this machine; the fastest is kept."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

SECONDS = 4.0  # of timing, each way
_LEAST_ROUNDS = 3


class Work(Protocol):
    """Something that does its work once per blocking call."""

    def call(self) -> Any:
        """Do the work and wait for it."""


@dataclasses.dataclass
class Choice:
    """The way that was kept.

    Attributes:
      name: of the way.
      work: ready, warmed up.
      first_call_seconds: from nothing to the first result.
      seconds: median of a call, of all ways timed; {} where there was one alone.
      failed: why a way could not be gone, one line each.
    """

    name: str
    work: Any
    first_call_seconds: float
    seconds: dict[str, float]
    failed: dict[str, str]

    def sentence(self) -> str:
        """Return what was found, on one line."""
        times = [f"{name} {1e3 * value:.1f} ms" for name, value in self.seconds.items()]
        reasons = [f"{name} failed: {reason}" for name, reason in self.failed.items()]
        return "; ".join([self.name, *times, *reasons])


def fastest(ways: Mapping[str, Callable[[], Work]], seconds: float = SECONDS) -> Choice:
    """Make every way ready, time them in turn, and return the one with the shortest median.

    Args:
      ways: by name, a function that makes each ready.
      seconds: of timing each way; three rounds at least.

    Raises:
      Exception: what the first way raises; another that fails is left out.
    """
    works, first, failed = {}, {}, {}
    for name, make in ways.items():
        began = time.perf_counter()
        try:
            work = make()
            work.call()
        except Exception as error:
            if not works:
                raise
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        else:
            works[name], first[name] = work, time.perf_counter() - began
    if len(works) == 1:
        (name,) = works
        return Choice(name, works[name], first[name], {}, failed)
    calls: dict[str, list[float]] = {name: [] for name in works}
    rounds, began = 0, time.perf_counter()
    while rounds < _LEAST_ROUNDS or time.perf_counter() - began < seconds * len(works):
        for name, work in works.items():
            start = time.perf_counter()
            work.call()
            calls[name].append(time.perf_counter() - start)
        rounds += 1
    medians = {name: statistics.median(of) for name, of in calls.items()}
    best = min(medians, key=medians.get)
    return Choice(best, works[best], first[best], medians, failed)
