"""How few places hold the relevance: the Gini index of a map (Chalasani et al., ICML 2020)."""

import numpy as np


def gini(maps: np.ndarray) -> np.ndarray:
    """Returns the Gini index of every clip's map, float64 [n].

    0 where all places have the same relevance (also none at all), 1 - 1/m where one of m has all.

    Args:
      maps: non-negative, [n, ...].
    """
    values = np.sort(np.float64(maps).reshape(len(maps), -1), axis=1)
    count = values.shape[1]
    total = values.sum(1)
    weighted = (values * (2 * np.arange(1, count + 1) - count - 1)).sum(1)
    return np.divide(weighted, count * total, out=np.zeros(len(maps)), where=total > 0)
