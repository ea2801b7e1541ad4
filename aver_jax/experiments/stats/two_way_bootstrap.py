"""One interval for two causes of chance: which actors are tested, and the seeds of the trainings.

Every actor is tested with every seed: the two are crossed. Each replicate draws as many actors as
there are and as many seeds as there are, both with replacement, and counts a clip as often as its
actor was drawn times its seed was drawn (the pigeonhole bootstrap; Owen 2007, "The pigeonhole
bootstrap", Annals of Applied Statistics 1(2)). It is somewhat too wide rather than too narrow,
except with few seeds: of 2 or 3, a resampling shows less than what further ones would change.
"""

from collections.abc import Callable

import numpy as np

from aver_jax.evaluation import bootstrap
from aver_jax.evaluation.metrics import grouped_confusion


def crossed_difference(
    statistic: Callable[[np.ndarray], np.ndarray],
    labels,
    predictions,
    others,
    actors,
    seeds,
    num_classes: int,
    samples: int = bootstrap.SAMPLES,
    seed: int = bootstrap.SEED,
) -> bootstrap.Difference:
    """Returns how much better one network scores than another, with its 95% interval.

    Args:
      statistic: confusion counts [samples, C, C] -> [samples], such as `metrics.war`. Replicates
        where it is NaN are left out.
      labels: int [n].
      predictions: int [n], of the one network.
      others: int [n], of the network it is compared with.
      actors: [n], the actor of each clip.
      seeds: [n], the seed of the training that was tested on it.
      num_classes: C.
      samples: number of replicates.
      seed: fixes the replicates.

    Returns:
      statistic(predictions) - statistic(others). With one seed the interval is over the actors
      alone; with fewer than 2 actors its ends are NaN.
    """
    labels, predictions, others = map(np.asarray, (labels, predictions, others))
    seeds = np.asarray(seeds)
    actor_names, actor = np.unique(np.asarray(actors), return_inverse=True)
    seed_names = np.unique(seeds)
    counts = np.zeros((2, len(seed_names), len(actor_names), num_classes, num_classes), np.int64)
    for number, name in enumerate(seed_names):
        mine = seeds == name
        for which, own in enumerate((predictions, others)):
            groups, found = grouped_confusion(labels[mine], own[mine], actor[mine], num_classes)
            counts[which, number, groups] = found
    one, other = counts.sum((1, 2))
    value = float(statistic(one) - statistic(other))
    if len(actor_names) < 2:
        return bootstrap.Difference(value, float("nan"), float("nan"))
    of_actors = bootstrap.draw_groups(len(actor_names), samples, seed)
    # Another stream than the actors': equal numbers of both must not be drawn alike.
    of_seeds = bootstrap.draw_groups(len(seed_names), samples, seed + 1)
    # [samples, 2, C, C]: summed over actors seed by seed, so that nothing large is held.
    drawn = sum(
        of_seeds[:, number, None, None, None]
        * np.tensordot(of_actors, counts[:, number], axes=(1, 1))
        for number in range(len(seed_names))
    )
    replicates = np.asarray(statistic(drawn[:, 0]) - statistic(drawn[:, 1]))
    known = replicates[~np.isnan(replicates)]
    tail = 100 * (1 - bootstrap.LEVEL) / 2
    ends = np.percentile(known, [tail, 100 - tail]) if known.size else (np.nan, np.nan)
    return bootstrap.Difference(value, float(ends[0]), float(ends[1]))
