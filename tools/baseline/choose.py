"""Chooses the fastest of several variants of the same work on this machine."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aver_jax.bench.timing import seconds_of_calls

SECONDS = 4.0  # of timing, each variant
_LEAST_ROUNDS = 3
# Of the time left: what the timing of a variant may take of it.
_SHARE = 0.01
# Than the slowest variant so far, the next one.
_LONGER = 1.3


class Work(Protocol):
    """Something that does its work once per blocking call."""

    def call(self) -> Any:
        """Does the work and waits for it."""


@dataclasses.dataclass
class Choice:
    """The variant that was chosen.

    Attributes:
      name: of the variant.
      work: ready, warmed up.
      first_call_seconds: from its construction to the first result.
      seconds: median of a call, of all variants timed; {} if there was only one.
      failed: why a variant failed, one line each.
    """

    name: str
    work: Any
    first_call_seconds: float
    seconds: dict[str, float]
    failed: dict[str, str]

    def sentence(self) -> str:
        """Returns the choice and all times on one line."""
        times = [f"{name} {1e3 * value:.1f} ms" for name, value in self.seconds.items()]
        reasons = [f"{name} failed: {reason}" for name, reason in self.failed.items()]
        return "; ".join([self.name, *times, *reasons])


def fastest(
    variants: Mapping[str, Callable[[], Work]],
    until: float = float("inf"),
    longest: float = 0.0,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Choice:
    """Times variants in turn and returns the one with the shortest median.

    Args:
      variants: by name, a function that constructs each.
      until: when all must be done, on the clock. A variant that would not be ready by then, if it
        took somewhat longer than the slowest before it, is not tried; less is timed as well.
      longest: seconds that the slowest before these took.
      seconds: of timing each variant; three rounds at least.
      clock: returns seconds.

    Raises:
      Exception: what the first variant raises; others that fail are left out.
    """
    works, first, failed = {}, {}, {}
    seconds = min(seconds, _SHARE * max(0.0, until - clock()))
    for name, make in variants.items():
        if works and clock() + _LONGER * max(longest, *first.values()) > until:
            failed[name] = "not tried, no time was left"
            continue
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
            calls[name] += seconds_of_calls(work.call, 1)
        rounds += 1
    medians = {name: statistics.median(of) for name, of in calls.items()}
    best = min(medians, key=medians.get)
    return Choice(best, works[best], first[best], medians, failed)
