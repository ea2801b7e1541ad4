"""Timing of calls that alternate between implementations: medians, quartiles and ratios."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

#: Implementation -> the seconds of its calls, one list per round.
Rounds = dict[str, list[list[float]]]
# Short calls are repeated for about this long per round.
_ROUND_SECONDS = 0.2
_MOST_CALLS = 50


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float


def seconds_of_calls(call: Callable[[], object], repeats: int) -> list[float]:
    """Returns the wall seconds of each of some calls of a function that blocks."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def calls_per_round(seconds: float) -> int:
    """Returns how many calls, each of that many seconds, make one round."""
    return max(1, min(_MOST_CALLS, round(_ROUND_SECONDS / max(seconds, 1e-9))))


def alternated(
    implementations: Mapping[str, Callable[[int], list[float]]],
    rounds: int,
    budget: float,
    calls: Mapping[str, int],
    least: int = 5,
    clock: Callable[[], float] = time.monotonic,
) -> Rounds:
    """Times implementations in turn, reversing their order every round.

    A machine that is slow for a while slows every implementation in a round, so ratios are taken
    within rounds.

    Args:
      implementations: name -> function that makes n calls and returns the seconds of each.
      rounds: maximum number of rounds.
      budget: seconds after which no round starts, once `least` rounds are done.
      calls: name -> calls per round.
      least: minimum number of rounds; in fewer, a short slow phase would be the median.
      clock: returns seconds.
    """
    began, found = clock(), {name: [] for name in implementations}
    for number in range(rounds):
        if number >= least and clock() - began >= budget:
            break
        for name in list(implementations) if number % 2 == 0 else reversed(implementations):
            found[name].append(implementations[name](calls[name]))
    return found


def spread(values: Sequence[float]) -> Spread:
    """Returns the median and the quartiles of one or more values."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def seconds_per_call(rounds: Sequence[Sequence[float]]) -> Spread:
    """Returns the spread over rounds of the median call of each round."""
    return spread([statistics.median(calls) for calls in rounds])


def ratio(
    ours: Sequence[Sequence[float]],
    theirs: Sequence[Sequence[float]],
    our_clips: int = 1,
    their_clips: int = 1,
) -> Spread:
    """Returns our clips/s divided by theirs: the spread of the ratios of paired rounds.

    Args:
      ours, theirs: seconds of the calls of each round.
      our_clips, their_clips: clips per call.
    """
    pairs = zip(ours, theirs, strict=False)
    return spread(
        [
            (statistics.median(b) / their_clips) / (statistics.median(a) / our_clips)
            for a, b in pairs
        ]
    )
