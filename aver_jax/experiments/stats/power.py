"""How many actors and seeds decide a difference: power, from variances that a study measured.

The difference of two networks on actor a with seed s is taken as d + A_a + S_s + E_as: what the
actor adds, what the seed adds, and what is left of their cell (the clips among it). Actors and
seeds are crossed, as in `two_way_bootstrap`, whose interval decides. Both that interval and the
difference are taken as normal, and the interval's width as its expectation: with 12 actors and
5 seeds or more the rate of decisions comes out within 10 points (tested by simulation). Every
actor counts alike here, where a score counts every clip alike.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from aver_jax.evaluation import bootstrap
from aver_jax.experiments.stats.predictions import LEAST_ACTORS, ClipPredictions

#: The share of studies that are to decide.
POWER = 0.8
#: More actors than this no study has.
MOST_ACTORS = 10_000
_NORMAL = NormalDist()
_CRITICAL = _NORMAL.inv_cdf((1 + bootstrap.LEVEL) / 2)


class Components(NamedTuple):
    """Variances of a paired difference (a share, so squared shares)."""

    actor: float
    seed: float
    residual: float


def cell_differences(
    ones: Sequence[ClipPredictions], others: Sequence[ClipPredictions]
) -> np.ndarray:
    """Returns the difference of accuracy of two networks: float64 [actors, seeds].

    Args:
      ones, others: of the networks; only the places (variant, fold, seed) that both have count.
        Actors that some seed lacks are left out.
    """
    of_place = {o.place: o for o in others}
    clips: dict[tuple[str, int], list[np.ndarray]] = {}
    for one in ones:
        if (other := of_place.get(one.place)) is None:
            continue
        gained = np.subtract(
            one.predictions == one.labels, other.predictions == one.labels, dtype=float
        )
        for actor in np.unique(one.actors).tolist():
            clips.setdefault((actor, one.cell.seed), []).append(gained[one.actors == actor])
    actors, seeds = (sorted({key[i] for key in clips}) for i in (0, 1))
    whole = [a for a in actors if all((a, s) in clips for s in seeds)]
    means = [[np.concatenate(clips[a, s]).mean() for s in seeds] for a in whole]
    return np.array(means, float).reshape(len(whole), len(seeds))


def components_of(differences: np.ndarray) -> Components | None:
    """Returns the variances behind differences [actors, seeds]; None with fewer than 2 of either.

    By the mean squares of a two-way layout with one value in a cell (Searle, Casella & McCulloch
    1992, "Variance Components", chapter 4); an estimate below 0 is 0. Of few seeds it is rough.
    """
    actors, seeds = differences.shape
    if min(actors, seeds) < 2:
        return None
    of_actors, of_seeds = differences.mean(1, keepdims=True), differences.mean(0, keepdims=True)
    left = differences - of_actors - of_seeds + differences.mean()
    residual = float(np.sum(left**2) / ((actors - 1) * (seeds - 1)))
    return Components(
        actor=max(0.0, float(of_actors.var(ddof=1)) - residual / seeds),
        seed=max(0.0, float(of_seeds.var(ddof=1)) - residual / actors),
        residual=residual,
    )


def standard_deviation(components: Components, actors: int, seeds: int) -> float:
    """Returns by how much the difference of a study varies from study to study."""
    of_actors, of_seeds, residual = components
    return math.sqrt(of_actors / actors + of_seeds / seeds + residual / (actors * seeds))


def interval_deviation(components: Components, actors: int, seeds: int) -> float:
    """Returns the standard deviation that the pigeonhole bootstrap expects instead.

    The root of its mean variance: with n actors and m seeds the variances over actors, over seeds
    and within cells of the data, each as the bootstrap sees it, divided by n, m and n m (after
    Owen 2007). It counts the residual up to three times; with one seed it sees no seeds at all.
    """
    n, m = actors, seeds
    of_actors, of_seeds, residual = components
    within = (n - 1) / n + (m - 1) / m + (n - 1) * (m - 1) / (n * m)
    return math.sqrt(
        of_actors * (n - 1) / n**2 + of_seeds * (m - 1) / m**2 + residual * within / (n * m)
    )


def power(components: Components, difference: float, actors: int, seeds: int) -> float:
    """Returns how often a study finds that the better network scores higher: a share.

    Args:
      components: variances of the paired difference.
      difference: the true one, a share, above 0.
      actors, seeds: of the study; 0 with fewer than `LEAST_ACTORS`, which decide nothing.
    """
    if actors < LEAST_ACTORS:
        return 0.0
    needed = _CRITICAL * interval_deviation(components, actors, seeds)
    varies = standard_deviation(components, actors, seeds)
    return _NORMAL.cdf((difference - needed) / varies) if varies else float(difference > needed)


def smallest_difference(components: Components, actors: int, seeds: int) -> float | None:
    """Returns the smallest difference, a share, that `POWER` of studies decide; None: no one."""
    if actors < LEAST_ACTORS:
        return None
    needed = _CRITICAL * interval_deviation(components, actors, seeds)
    return needed + _NORMAL.inv_cdf(POWER) * standard_deviation(components, actors, seeds)


def actors_needed(components: Components, difference: float, seeds: int) -> int | None:
    """Returns the fewest actors with which `POWER` of studies of so many seeds decide a difference.

    None where `MOST_ACTORS` would not: what the seeds add does not shrink with the actors.
    """

    def decides(actors: int) -> bool:
        return smallest_difference(components, actors, seeds) <= difference

    low, high = LEAST_ACTORS, MOST_ACTORS
    if not decides(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle + 1, high)
    return low
