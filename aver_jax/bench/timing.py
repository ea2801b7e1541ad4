"""Repeats that alternate between sides, and what is said of them: medians, quartiles, ratios."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

#: side -> one list of seconds per round.
Rounds = dict[str, list[list[float]]]
# A block of calls lasts about this long, so that a short call is not all start and clock.
_BLOCK_SECONDS = 0.2
_MOST_CALLS = 50


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float


def calls_per_round(seconds: float) -> int:
    """Returns how many calls of that many seconds make a round of a side."""
    return max(1, min(_MOST_CALLS, round(_BLOCK_SECONDS / max(seconds, 1e-9))))


def alternated(
    sides: Mapping[str, Callable[[int], list[float]]],
    rounds: int,
    budget: float,
    calls: Mapping[str, int],
    least: int = 5,
    clock: Callable[[], float] = time.monotonic,
) -> Rounds:
    """Times the sides in turn, each round in the other order.

    Whatever slows the machine for a while slows all sides of a round, so rounds are what ratios are
    made of; of few rounds a slow spell of some seconds would be the median.

    Args:
      sides: side -> a function that makes that many calls and returns the seconds of each.
      rounds: at most.
      budget: seconds; no round begins after them, but `least` rounds are made whatever they take.
      calls: side -> calls in a round.
      least: rounds.
      clock: seconds.
    """
    began, found = clock(), {name: [] for name in sides}
    for number in range(rounds):
        if number >= least and clock() - began >= budget:
            break
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            found[name].append(sides[name](calls[name]))
    return found


def spread(values: Sequence[float]) -> Spread:
    """Returns the median and the quartiles of some values; of one value, that."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def seconds_per_call(rounds: Sequence[Sequence[float]]) -> Spread:
    """Returns the spread of a side's calls over its rounds, of the median call of each round."""
    return spread([statistics.median(calls) for calls in rounds])


def ratio(
    ours: Sequence[Sequence[float]],
    theirs: Sequence[Sequence[float]],
    our_clips: int = 1,
    their_clips: int = 1,
) -> Spread:
    """Returns how many times our clips/s are theirs: the spread of the ratios of paired rounds.

    Args:
      ours, theirs: seconds of the calls of each round.
      our_clips, their_clips: clips of a call.
    """
    pairs = zip(ours, theirs, strict=False)
    return spread(
        [
            (statistics.median(b) / their_clips) / (statistics.median(a) / our_clips)
            for a, b in pairs
        ]
    )
