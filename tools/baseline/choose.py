"""Several ways to do the same work, timed in turn on this machine; the fastest is kept."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_SECONDS = 4.0  # of timing, each way


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
      seconds: median of a call, of all ways tried.
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
        return f"{self.name}; " + ", ".join(times + reasons)


def fastest(ways: Mapping[str, Callable[[], Work]]) -> Choice:
    """Make every way ready, time them in turn, and return the one with the shortest median.

    Raises:
      Exception: what the first way raises; another that fails is left out.
    """
    works, first, failed = {}, {}, {}
    for name, make in ways.items():
        began = time.perf_counter()
        try:
            works[name] = make()
            works[name].call()
        except Exception as error:
            if not works:
                raise
            works.pop(name, None)
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            continue
        first[name] = time.perf_counter() - began
    seconds: dict[str, list[float]] = {name: [] for name in works}
    spent = 0.0
    # Of one way there is nothing to choose.
    while len(works) > 1 and (spent < _SECONDS * len(works) or len(min(seconds.values())) < 3):
        for name, work in works.items():
            began = time.perf_counter()
            work.call()
            seconds[name].append(time.perf_counter() - began)
            spent += seconds[name][-1]
    medians = {name: statistics.median(of) for name, of in seconds.items() if of}
    best = min(medians, key=medians.get) if medians else next(iter(works))
    return Choice(best, works[best], first[best], medians, failed)
