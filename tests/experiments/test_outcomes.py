"""Pooling and comparing: known numbers in, known intervals and decisions out."""

import math

import numpy as np
import pytest
import scipy.stats

from aver_jax import metrics
from aver_jax.bootstrap import Interval
from aver_jax.errors import UserError
from aver_jax.experiments.grid import Cell
from aver_jax.experiments.outcomes import (
    Comparison,
    Outcome,
    averaged_confusion,
    best_single,
    chosen,
    compare,
    pooled,
    spread,
    t_interval,
)

ACTORS = 12


def outcome(network: str, right: np.ndarray, fold: int = 1, seed: int = 0) -> Outcome:
    """Five clips of each actor, three classes; `right` bool [60]."""
    labels = np.arange(5 * ACTORS) % 3
    predictions = np.where(right, labels, (labels + 1) % 3)
    confusion = metrics.confusion_matrix(labels, predictions, 3)
    return Outcome(
        cell=Cell(network, "lstm", fold, seed),
        results={
            "classes": ["a", "b", "c"],
            "confusion": confusion.tolist(),
            "metrics": {"war": {"value": float(metrics.war(confusion))}},
        },
        seconds=1.0,
        rows=100 * fold + np.arange(5 * ACTORS),
        labels=labels,
        predictions=predictions,
        actors=np.repeat([f"{fold}{actor:02d}" for actor in range(ACTORS)], 5),
        clip_ids=np.arange(5 * ACTORS).astype(str),
        branches={},
        features=None,
    )


def right(share: float, shift: int = 0) -> np.ndarray:
    """The first share of every actor's five clips, turned by `shift`."""
    return (np.arange(5 * ACTORS) + shift) % 5 < round(5 * share)


def test_mean_and_deviation_are_over_folds_and_seeds():
    runs = [outcome("n0", right(share), fold, seed) for fold, seed, share in
            [(1, 0, 0.2), (2, 0, 0.4), (1, 1, 0.6), (2, 1, 0.8)]]  # fmt: skip
    found = spread(runs)
    assert found.mean == pytest.approx(0.5)
    assert found.deviation == pytest.approx(np.std([0.2, 0.4, 0.6, 0.8], ddof=1))
    assert found.cells == 4
    assert math.isnan(spread(runs[:1]).deviation)
    assert math.isnan(spread([]).mean)


def test_the_pooled_score_counts_every_clip_once_a_seed():
    some = [outcome("n0", right(0.2), 1), outcome("n0", right(0.8), 2)]
    found = pooled(some)
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_a_consistent_difference_is_decided():
    seeds = (0, 1, 2)
    better = [outcome("n2", right(0.8, s), seed=s) for s in seeds]
    worse = [outcome("n0", right(0.4, s), seed=s) for s in seeds]
    found = compare(better, worse)
    assert found.value == pytest.approx(0.4)
    assert list(found.by_seed) == [0, 1, 2]
    assert found.actors.low == pytest.approx(0.4)
    assert found.better is True
    assert compare(worse, better).better is False


def test_a_difference_that_turns_with_the_seed_is_undecided():
    better = [outcome("n2", right(share), seed=s) for s, share in enumerate((1.0, 0.4, 0.8))]
    worse = [outcome("n0", right(0.6), seed=s) for s in range(3)]
    found = compare(better, worse)
    assert found.actors.low > 0
    assert found.seeds.low < 0 < found.seeds.high
    assert found.better is None


def test_one_seed_decides_nothing():
    found = compare([outcome("n2", right(1.0))], [outcome("n0", right(0.2))])
    assert found.actors.low > 0
    assert math.isnan(found.seeds.low)
    assert found.better is None


def test_equal_networks_are_undecided():
    tie = Comparison(0.0, Interval(0.0, 0.0), {0: 0.0, 1: 0.0}, Interval(0.0, 0.0))
    assert tie.better is None


def test_only_places_that_both_have_are_compared():
    ones = [outcome("n2", right(0.8), fold=f) for f in (1, 2, 3)]
    others = [outcome("n0", right(0.4), fold=f) for f in (2, 3, 4)]
    assert compare(ones, others).value == pytest.approx(0.4)
    assert compare(ones[:1], others) is None


def test_networks_tested_on_other_clips_are_not_compared():
    one, other = outcome("n2", right(0.8)), outcome("n0", right(0.4))
    other.rows[0] = 7
    with pytest.raises(UserError, match="n2_lstm_fold1_seed0 and n0_lstm_fold1_seed0"):
        compare([one], [other])


def test_the_interval_over_seeds_is_students():
    values = [0.1, 0.3, 0.15, 0.2]
    expected = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert tuple(t_interval(values)) == pytest.approx(expected)


def test_the_best_single_modality_is_the_one_with_more_clips_right():
    runs = [outcome("audio", right(0.6)), outcome("video", right(0.4)), outcome("n0", right(1.0))]
    assert best_single(runs) == "audio"
    assert best_single(chosen(runs, network="n0")) is None


def test_confusions_are_averaged_as_shares():
    some = [outcome("n0", right(1.0)), outcome("n0", right(0.0))]
    found = averaged_confusion(some)
    np.testing.assert_allclose(found, np.eye(3) / 2 + np.roll(np.eye(3), 1, 1) / 2)
    some[0].results["confusion"] = [[0, 0, 0], [0, 4, 0], [0, 0, 0]]
    found = averaged_confusion(some)
    np.testing.assert_allclose(found[0], [0, 1, 0])
    found = averaged_confusion(some[:1])
    assert np.isnan(found[[0, 2]]).all()
