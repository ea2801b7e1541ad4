"""Alternation, medians and ratios, on given numbers."""

import pytest

from aver_jax.bench.timing import (
    Spread,
    alternated,
    calls_per_round,
    ratio,
    seconds_per_call,
    spread,
)


class Timed:
    """Two implementations that note their calls, and a clock that moves a second per call."""

    def __init__(self):
        self.order, self.now = [], 0.0

    def implementation(self, name):
        def calls(count):
            self.order.append((name, count))
            self.now += count
            return [1.0] * count

        return calls

    def run(self, **options):
        implementations = {name: self.implementation(name) for name in ("a", "b")}
        return alternated(
            implementations, calls={"a": 1, "b": 2}, clock=lambda: self.now, **options
        )


def test_implementations_alternate_and_every_round_reverses_the_order():
    timed = Timed()
    found = timed.run(rounds=3, budget=1e9)
    assert timed.order == [("a", 1), ("b", 2), ("b", 2), ("a", 1), ("a", 1), ("b", 2)]
    assert found == {"a": [[1.0]] * 3, "b": [[1.0, 1.0]] * 3}


def test_no_round_begins_after_the_budget_but_some_are_made():
    assert len(Timed().run(rounds=100, budget=28.0)["a"]) == 10
    assert len(Timed().run(rounds=100, budget=-1.0)["a"]) == 5


def test_medians_and_quartiles():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0)
    # One slow call of a round is no matter, nor is one slow round.
    rounds = [[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [9.0, 9.0, 1.0]]
    assert seconds_per_call(rounds).median == 2.0


def test_ratios_are_of_paired_rounds():
    # The machine halves its speed in the second round: a ratio of medians would see it.
    ours, theirs = [[1.0], [2.0], [1.0]], [[2.0], [4.0], [2.0]]
    assert ratio(ours, theirs) == Spread(2.0, 2.0, 2.0)


def test_ratios_are_of_clips():
    # They take as long for a quarter of the clips.
    assert ratio([[1.0]], [[1.0]], our_clips=8, their_clips=2).median == 4.0


@pytest.mark.parametrize(("seconds", "calls"), [(3.0, 1), (0.05, 4), (1e-6, 50)])
def test_short_calls_come_in_blocks(seconds, calls):
    assert calls_per_round(seconds) == calls
