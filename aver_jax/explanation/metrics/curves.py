"""How a class's probability falls or rises as a clip is taken away or given back by relevance.

p(q) is the probability of the explained class with the most relevant share q of all tubelets
replaced, s(q) that with everything else replaced:

    deletion           area under p over q, low for a good method    (Petsiuk et al. 2018)
    insertion          area under s over q, high for a good method
    comprehensiveness  mean over q of p(0) - p(q), high              (DeYoung et al. 2020)
    sufficiency        mean over q of p(0) - s(q), low

The last two are over the shares of `AOPC`.
"""

import numpy as np

AOPC = (0.01, 0.05, 0.1, 0.2, 0.5)
#: Shares at which both curves are taken: those of `AOPC`, and tenths.
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def area(curve: np.ndarray, shares: tuple[float, ...] = SHARES) -> np.ndarray:
    """Returns the area under curves [..., K] over shares from 0 to 1, by trapezoids: [...]."""
    x = np.asarray(shares, np.float64)
    return ((curve[..., 1:] + curve[..., :-1]) / 2 * np.diff(x)).sum(-1)


def comprehensiveness(deleted: np.ndarray, shares: tuple[float, ...] = SHARES) -> np.ndarray:
    """Returns the mean drop when the most relevant are replaced, of p [..., K]: [...]."""
    return (deleted[..., :1] - deleted[..., _places(shares)]).mean(-1)


def sufficiency(
    deleted: np.ndarray, kept: np.ndarray, shares: tuple[float, ...] = SHARES
) -> np.ndarray:
    """Returns the mean drop when only the most relevant are kept, of p and s [..., K]: [...]."""
    return (deleted[..., :1] - kept[..., _places(shares)]).mean(-1)


def class_probability(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the softmax probability of a clip's class under every mask, float64 [n,K].

    Args:
      logits: [n,K,C].
      target: int [n].
    """
    shifted = np.float64(logits) - logits.max(-1, keepdims=True)
    shares = np.exp(shifted)
    shares /= shares.sum(-1, keepdims=True)
    return shares[np.arange(len(target)), :, target]


def _places(shares: tuple[float, ...]) -> list[int]:
    return [shares.index(share) for share in AOPC]
