"""Bootstrap intervals that resample whole actors.

Clips of one actor are not independent: resampling clips would make an interval too narrow. Each
replicate therefore draws as many actors as there are, with replacement, and takes all the clips
of each (the cluster bootstrap; Davison & Hinkley 1997, section 3.8).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aver_jax.evaluation.metrics import grouped_confusion

SAMPLES = 2000
SEED = 0
LEVEL = 0.95


class Interval(NamedTuple):
    """A percentile interval; both ends are NaN with fewer than 2 actors, where none exists."""

    low: float
    high: float


class Difference(NamedTuple):
    """A difference and its percentile interval, whose ends are NaN with fewer than 2 actors."""

    value: float
    low: float
    high: float


def draw_groups(num_groups: int, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Returns how often each group is drawn in each replicate: int64 [samples, num_groups]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_groups, np.full(num_groups, 1.0 / num_groups), size=samples)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    labels,
    predictions,
    groups,
    num_classes: int,
    samples: int = SAMPLES,
    seed: int = SEED,
):
    """Returns the 95% interval of a statistic of the confusion matrix.

    Args:
      statistic: confusion counts [samples, C, C] -> [samples] or [samples, K]; for example
        `metrics.uar` or `metrics.per_class_recall`. Replicates where it is NaN (a class that no
        drawn actor shows) are left out.
      labels: int [n].
      predictions: int [n].
      groups: [n], the actor of each clip.
      num_classes: C.
      samples: number of replicates.
      seed: fixes the replicates.

    Returns:
      An `Interval` of floats, or of float64 [K].
    """
    names, counts = grouped_confusion(labels, predictions, groups, num_classes)
    if len(names) < 2:
        return _unknown(np.asarray(statistic(counts.sum(0)[None]))[0])
    drawn = draw_groups(len(names), samples, seed)
    replicates = (drawn @ counts.reshape(len(names), -1)).reshape(-1, num_classes, num_classes)
    return _percentiles(np.asarray(statistic(replicates)))


def paired_difference(
    statistic: Callable[[np.ndarray], np.ndarray],
    labels,
    predictions,
    others,
    groups,
    num_classes: int,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> Difference:
    """Returns by how much one model scores better on the same clips, with its 95% interval.

    Each replicate scores both models on the same drawn actors. What makes an actor easy or hard
    for both cancels in the difference, so its interval is narrower than two intervals side by side
    suggest; where it leaves out 0, the drawn actors agree on which model is better.

    Args:
      statistic: confusion counts [samples, C, C] -> [samples], such as `metrics.war`.
      labels: int [n].
      predictions: int [n], of the one model.
      others: int [n], of the model it is compared with.
      groups: [n], the actor of each clip.
      num_classes: C.
      samples: number of replicates.
      seed: fixes the replicates.

    Returns:
      statistic(predictions) - statistic(others).
    """
    pair = [grouped_confusion(labels, p, groups, num_classes) for p in (predictions, others)]
    names, (one, other) = pair[0][0], (counts for _, counts in pair)
    value = float(statistic(one.sum(0)) - statistic(other.sum(0)))
    if len(names) < 2:
        return Difference(value, float("nan"), float("nan"))
    drawn = draw_groups(len(names), samples, seed)
    replicates = [np.tensordot(drawn, counts, axes=1) for counts in (one, other)]
    return Difference(value, *_percentiles(statistic(replicates[0]) - statistic(replicates[1])))


def bootstrap_mean_interval(values, groups, samples: int = SAMPLES, seed: int = SEED) -> Interval:
    """Returns the 95% interval of the mean over clips of a value per clip, such as the loss.

    Args:
      values: float [n].
      groups: [n], the actor of each clip.
      samples: number of replicates.
      seed: fixes the replicates.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return _unknown(np.float64(0))
    total = np.bincount(index, np.asarray(values, np.float64), minlength=len(names))
    count = np.bincount(index, minlength=len(names))
    drawn = draw_groups(len(names), samples, seed)
    return _percentiles((drawn @ total) / (drawn @ count))


def _percentiles(replicates):
    tail = 100 * (1 - LEVEL) / 2
    columns = replicates.reshape(len(replicates), -1).T
    known = [column[~np.isnan(column)] for column in columns]
    ends = np.array(
        [np.percentile(k, [tail, 100 - tail]) if k.size else [np.nan, np.nan] for k in known]
    )
    if replicates.ndim == 1:
        return Interval(float(ends[0, 0]), float(ends[0, 1]))
    return Interval(ends[:, 0], ends[:, 1])


def _unknown(value):
    if value.ndim:
        return Interval(np.full(value.shape, np.nan), np.full(value.shape, np.nan))
    return Interval(float("nan"), float("nan"))
