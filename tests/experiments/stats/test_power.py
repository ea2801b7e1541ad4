"""Power: what is estimated is what was put in, and studies decide as often as is said."""

import numpy as np
import pytest

from aver_jax.evaluation import metrics
from aver_jax.experiments.grid.trainings import Cell
from aver_jax.experiments.stats.power import (
    POWER,
    Components,
    actors_needed,
    cell_differences,
    components_of,
    interval_deviation,
    power,
    smallest_difference,
    standard_deviation,
)
from aver_jax.experiments.stats.predictions import ClipPredictions
from aver_jax.experiments.stats.two_way_bootstrap import crossed_difference

CLIPS = 40


def simulated(rng, components, difference, actors, seeds):
    """Hits of the one network, bool [actors, seeds, clips]; the other one is right on every second.

    The residual variance is that of drawing the clips, about 0.25 / CLIPS.
    """
    chance = 0.5 + difference + np.sqrt(components.actor) * rng.normal(size=(actors, 1))
    chance = chance + np.sqrt(components.seed) * rng.normal(size=(1, seeds))
    return rng.random((actors, seeds, CLIPS)) < chance[..., None]


def decisions(rng, components, difference, actors, seeds, trials):
    """The share of simulated studies whose interval lies above 0."""
    higher = 0
    for _ in range(trials):
        hits = simulated(rng, components, difference, actors, seeds)
        of_actor, of_seed, _ = (i.ravel() for i in np.indices(hits.shape))
        found = crossed_difference(
            metrics.war, np.zeros(hits.size, int), 1 - hits.ravel(), np.arange(hits.size) % 2,
            of_actor, of_seed, 2, samples=400,
        )  # fmt: skip
        higher += found.low > 0
    return higher / trials


KNOWN = {
    "actors": Components(0.06**2, 0.01**2, 0.25 / CLIPS),
    "seeds": Components(0.02**2, 0.05**2, 0.25 / CLIPS),
    "both": Components(0.05**2, 0.03**2, 0.25 / CLIPS),
}


@pytest.mark.parametrize(("actors", "seeds"), [(12, 5), (30, 10)])
@pytest.mark.parametrize("name", KNOWN)
def test_studies_decide_as_often_as_is_said(name, actors, seeds):
    known = KNOWN[name]
    for number, share in enumerate((0.0, 0.6, 1.0)):
        true = share * smallest_difference(known, actors, seeds)
        rate = decisions(np.random.default_rng(number), known, true, actors, seeds, trials=150)
        # 150 studies leave 3 points of chance; what else there is comes from the approximation.
        assert rate == pytest.approx(power(known, true, actors, seeds), abs=0.1)


def test_the_interval_is_as_wide_as_expected():
    known, rng, widths = KNOWN["both"], np.random.default_rng(0), []
    for _ in range(60):
        hits = simulated(rng, known, 0.0, 20, 8)
        of_actor, of_seed, _ = (i.ravel() for i in np.indices(hits.shape))
        found = crossed_difference(
            metrics.war, np.zeros(hits.size, int), 1 - hits.ravel(), np.arange(hits.size) % 2,
            of_actor, of_seed, 2, samples=400,
        )  # fmt: skip
        widths.append((found.high - found.low) / (2 * 1.96))
    assert np.mean(widths) == pytest.approx(interval_deviation(known, 20, 8), rel=0.1)


def test_the_variances_are_those_that_were_put_in():
    known, rng = Components(0.06**2, 0.04**2, 0.08**2), np.random.default_rng(1)
    found = []
    for _ in range(400):
        cells = 0.06 * rng.normal(size=(15, 1)) + 0.04 * rng.normal(size=(1, 8))
        found.append(components_of(cells + 0.08 * rng.normal(size=(15, 8))))
    np.testing.assert_allclose(np.mean(found, 0), known, rtol=0.1)
    assert components_of(np.zeros((5, 1))) is None
    assert components_of(np.zeros((1, 5))) is None
    # Actors alike: an estimate below 0 is none.
    assert components_of(np.array([[0.1, -0.1], [-0.1, 0.1]]))[:2] == (0.0, 0.0)


def test_the_smallest_difference_is_decided_by_the_share_that_is_asked_for():
    known = KNOWN["both"]
    for actors, seeds in ((10, 3), (60, 10)):
        least = smallest_difference(known, actors, seeds)
        assert power(known, least, actors, seeds) == pytest.approx(POWER)
    # The bootstrap is too wide rather than too narrow where there are some seeds.
    assert interval_deviation(known, 60, 10) > standard_deviation(known, 60, 10)


def test_the_actors_needed_are_the_fewest():
    known = KNOWN["both"]
    needed = actors_needed(known, 0.05, 10)
    assert smallest_difference(known, needed, 10) <= 0.05
    assert smallest_difference(known, needed - 1, 10) > 0.05
    assert actors_needed(known, 0.05, 20) < needed
    # Seeds that differ by 5 points: three of them never decide 3 points, whoever is tested.
    assert actors_needed(KNOWN["seeds"], 0.03, 3) is None
    # Never fewer than decide anything at all.
    assert actors_needed(Components(0.0, 0.0, 0.0), 0.03, 3) == 10
    assert power(known, 1.0, 9, 10) == 0.0
    assert smallest_difference(known, 9, 10) is None


def result(network, seed, right, fold=1, actors="aabb"):
    labels = np.zeros(len(right), int)
    return ClipPredictions(
        Cell(network, "lstm", fold, seed), ("x", "y"), np.arange(len(right)), labels,
        1 - np.array(right), np.array(list(actors)), np.arange(len(right)).astype(str),
    )  # fmt: skip


def test_cells_are_differences_of_an_actor_with_a_seed():
    ones = [result("n2", 0, [1, 1, 1, 0]), result("n2", 1, [1, 0, 1, 1]), result("n2", 2, [1] * 4)]
    others = [result("n0", 0, [1, 0, 1, 0]), result("n0", 1, [1, 1, 0, 0])]
    np.testing.assert_allclose(cell_differences(ones, others), [[0.5, -0.5], [0.0, 1.0]])
    # An actor of a fold that one seed lacks is left out.
    ones.append(result("n2", 0, [1, 1], fold=2, actors="cc"))
    others.append(result("n0", 0, [1, 1], fold=2, actors="cc"))
    assert cell_differences(ones, others).shape == (2, 2)
    assert components_of(cell_differences(ones, [])) is None
