"""The floor of a call: what binds, and rates measured twice."""

from aver_jax.bench.roofline import Rates, faster, floor_of
from aver_jax.bench.worker.rates import measured_rates

RATES = Rates({"float32": 1e12}, 1e11)


def test_the_slower_of_computing_and_copying_binds():
    floor = floor_of(flops=2e12, moved=1e11, dtype="float32", rates=RATES)
    assert (floor.seconds, floor.binds) == (2.0, "FLOPs")
    floor = floor_of(flops=2e12, moved=4e11, dtype="float32", rates=RATES)
    assert (floor.seconds, floor.binds) == (4.0, "bytes")
    assert floor_of(2e12, 4e11, "float32", RATES, devices=4).seconds == 1.0


def test_the_best_rate_counts():
    other = Rates({"float32": 2e12}, 1e10)
    assert faster(RATES, other) == Rates({"float32": 2e12}, 1e11)


def test_rates_are_measured():
    rates = measured_rates(["float32"], repeats=1)
    assert rates.matmul["float32"] > 1e8
    assert rates.copy > 1e7
