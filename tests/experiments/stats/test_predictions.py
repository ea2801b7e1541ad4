"""Pooling and comparing: known numbers in, known intervals and decisions out."""

import math

import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.evaluation import metrics
from aver_jax.experiments.grid.trainings import Cell
from aver_jax.experiments.stats.predictions import (
    CellResult,
    averaged_confusion,
    best_single,
    chosen,
    compare,
    pooled,
    spread,
)
from aver_jax.experiments.stats.two_way_bootstrap import crossed_difference

ACTORS = 12


def cell_result(network: str, right: np.ndarray, fold: int = 1, seed: int = 0) -> CellResult:
    """Five clips of each actor, three classes; `right` bool [60]."""
    labels = np.arange(5 * ACTORS) % 3
    predictions = np.where(right, labels, (labels + 1) % 3)
    confusion = metrics.confusion_matrix(labels, predictions, 3)
    return CellResult(
        cell=Cell(network, "lstm", fold, seed),
        classes=("a", "b", "c"),
        evaluation={
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
        config={},
        branches={},
        features=None,
    )


def right(share: float, shift: int = 0) -> np.ndarray:
    """The first share of every actor's five clips, turned by `shift`."""
    return (np.arange(5 * ACTORS) + shift) % 5 < round(5 * share)


def test_mean_and_std_are_over_folds_and_seeds():
    runs = [cell_result("n0", right(share), fold, seed) for fold, seed, share in
            [(1, 0, 0.2), (2, 0, 0.4), (1, 1, 0.6), (2, 1, 0.8)]]  # fmt: skip
    found = spread(runs)
    assert found.mean == pytest.approx(0.5)
    assert found.std == pytest.approx(np.std([0.2, 0.4, 0.6, 0.8], ddof=1))
    assert found.cells == 4
    assert math.isnan(spread(runs[:1]).std)
    assert math.isnan(spread([]).mean)


def test_the_pooled_score_counts_every_clip_once_a_seed():
    some = [cell_result("n0", right(0.2), 1), cell_result("n0", right(0.8), 2)]
    found = pooled(some)
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_a_consistent_difference_is_decided():
    seeds = (0, 1, 2)
    better = [cell_result("n2", right(0.8, s), seed=s) for s in seeds]
    worse = [cell_result("n0", right(0.4, s), seed=s) for s in seeds]
    found = compare(better, worse)
    assert found.value == pytest.approx(0.4)
    assert list(found.by_seed) == [0, 1, 2]
    assert found.actors.low == pytest.approx(0.4)
    assert (found.higher, found.no_worse, found.tested) == (True, True, ACTORS)
    reverse = compare(worse, better)
    assert (reverse.higher, reverse.no_worse) == (False, False)


def test_a_difference_that_turns_with_the_seed_is_undecided():
    better = [cell_result("n2", right(share), seed=s) for s, share in enumerate((1.0, 0.4, 0.8))]
    worse = [cell_result("n0", right(0.6), seed=s) for s in range(3)]
    found = compare(better, worse)
    assert found.actors.low > 0
    assert found.interval.low < 0 < found.interval.high
    assert found.higher is None


def test_two_causes_of_chance_make_a_wider_interval_than_either():
    rng = np.random.default_rng(0)
    ones, others = [], []
    for seed in range(6):
        hits = rng.random(5 * ACTORS) < np.repeat(rng.uniform(0.5, 1, ACTORS), 5) - 0.05 * seed
        ones.append(cell_result("n2", hits, seed=seed))
        others.append(cell_result("n0", right(0.4), seed=seed))
    found = compare(ones, others)
    by_seed = np.array(list(found.by_seed.values()))
    seeds = np.percentile(rng.choice(by_seed, (2000, 6)).mean(1), [2.5, 97.5])
    assert np.diff(found.interval) > max(np.diff(found.actors), np.diff(seeds))


def test_the_crossed_interval_covers_as_often_as_it_says():
    # Effects of actors and seeds on the share that the one gets right; the other gets half.
    rng, inside, trials = np.random.default_rng(3), 0, 60
    clips, actors, seeds = 40, 14, 8
    for _ in range(trials):
        chance = 0.6 + 0.08 * rng.normal(size=(actors, 1)) + 0.05 * rng.normal(size=(1, seeds))
        hits = rng.random((actors, seeds, clips)) < chance[..., None]
        labels = np.zeros(hits.size, int)
        of_actor, of_seed, _ = (i.ravel() for i in np.indices(hits.shape))
        found = crossed_difference(
            metrics.war, labels, 1 - hits.ravel(), np.arange(hits.size) % 2,
            of_actor, of_seed, 2, samples=300,
        )  # fmt: skip
        inside += found.low <= 0.1 <= found.high
    assert 0.85 <= inside / trials <= 1.0


def test_one_seed_is_an_interval_over_actors_alone():
    shares = np.linspace(0.2, 1.0, ACTORS)
    hits = np.concatenate([np.arange(5) < round(5 * share) for share in shares])
    found = compare([cell_result("n2", hits)], [cell_result("n0", right(0.2))])
    assert tuple(found.interval) == pytest.approx(tuple(found.actors))
    assert found.higher is True


def test_few_actors_decide_nothing():
    some = np.arange(5 * ACTORS) < 5 * 9
    ones = [cell_result("n2", right(1.0), seed=s).among(some) for s in range(3)]
    others = [cell_result("n0", right(0.2), seed=s).among(some) for s in range(3)]
    found = compare(ones, others)
    assert found.tested == 9
    assert found.interval.low > 0
    assert found.higher is found.no_worse is None


def test_equal_networks_are_no_worse_than_each_other():
    runs = [[cell_result(n, right(0.6), seed=s) for s in range(3)] for n in ("n2", "n0")]
    found = compare(*runs)
    assert tuple(found.interval) == (0.0, 0.0)
    assert (found.higher, found.no_worse) == (None, True)


def test_some_of_the_clips_keep_what_belongs_to_them():
    whole = cell_result("n0", right(0.4))
    keep = np.arange(5 * ACTORS) % 2 == 0
    some = whole.among(keep)
    assert not hasattr(some, "evaluation")
    assert some.place == whole.place == ("", 1, 0)
    for name in ("rows", "labels", "predictions", "actors", "clip_ids"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[keep])


def test_only_places_that_both_have_are_compared():
    ones = [cell_result("n2", right(0.8), fold=f) for f in (1, 2, 3)]
    others = [cell_result("n0", right(0.4), fold=f) for f in (2, 3, 4)]
    assert compare(ones, others).value == pytest.approx(0.4)
    assert compare(ones[:1], others) is None
    nothing = np.zeros(5 * ACTORS, bool)
    assert compare([ones[1].among(nothing)], [others[0].among(nothing)]) is None


def test_networks_tested_on_other_clips_are_not_compared():
    one, other = cell_result("n2", right(0.8)), cell_result("n0", right(0.4))
    other.rows[0] = 7
    with pytest.raises(UserError, match="n2_lstm_fold1_seed0 and n0_lstm_fold1_seed0"):
        compare([one], [other])


def test_the_best_single_modality_is_the_one_with_more_clips_right():
    runs = [
        cell_result("audio", right(0.6)),
        cell_result("video", right(0.4)),
        cell_result("n0", right(1.0)),
    ]
    assert best_single(runs) == "audio"
    assert best_single(chosen(runs, network="n0")) is None


def test_confusions_are_averaged_as_shares():
    some = [cell_result("n0", right(1.0)), cell_result("n0", right(0.0))]
    found = averaged_confusion(some)
    np.testing.assert_allclose(found, np.eye(3) / 2 + np.roll(np.eye(3), 1, 1) / 2)
    some[0].evaluation["confusion"] = [[0, 0, 0], [0, 4, 0], [0, 0, 0]]
    found = averaged_confusion(some)
    np.testing.assert_allclose(found[0], [0, 1, 0])
    found = averaged_confusion(some[:1])
    assert np.isnan(found[[0, 2]]).all()
