"""Percentile intervals of means over clips, for many values per clip at once.

Clips are resampled, not actors: the intervals say how a measure of the one trained model would vary
with other clips of these people, not with other people or another training.
"""

import numpy as np

from aver_jax.evaluation.bootstrap import LEVEL, SAMPLES, draw_groups


def mean_intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean over clips and the ends of its 95% interval, each float64 [...].

    Args:
      values: [n, ...], a row per clip. Every value is resampled with the same clips, so that
        intervals of differences (computed before, clip by clip) are paired.
    """
    values = np.asarray(values, np.float64)
    flat = values.reshape(len(values), -1)
    mean = flat.mean(0)
    if len(values) < 2:
        low = high = np.full(mean.shape, np.nan)
    else:
        replicates = draw_groups(len(values), SAMPLES) @ flat / len(values)
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.percentile(replicates, [tail, 100 - tail], axis=0)
    return tuple(x.reshape(values.shape[1:]) for x in (mean, low, high))
