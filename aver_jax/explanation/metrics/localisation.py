"""Does relevance lie where the label is known to lie? Scores of maps against a known region.

A map and its region have one shape: patches of a clip [n, T, h, w], frames of a clip [n, T], or
bands of a spectrogram. All places of a clip are ranked together, its frames too. The shares are
those of `inside`: a map drawn at random scores the region's share of the area in the pointing game
and in relevance mass, and 0.5 in the area under ROC. So does a constant map, one of zeros too: it
points nowhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata


class Localisation(NamedTuple):
    """Scores of each clip, float64 [n], higher is better; `area` is the region's share of it."""

    pointing: np.ndarray
    mass: np.ndarray
    auc: np.ndarray
    area: np.ndarray


def localisation(maps: np.ndarray, inside: np.ndarray) -> Localisation:
    """Returns how well maps find a region.

    Args:
      maps: float [n, ...], non-negative relevance.
      inside: bool, same shape: the places of the region. A clip whose region is empty, or is all
        there is, has NaN for its scores.

    Raises:
      ValueError: the shapes differ.
    """
    if maps.shape != inside.shape:
        raise ValueError(f"maps are {list(maps.shape)} and the region {list(inside.shape)}")
    flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
    region = inside.reshape(len(maps), -1)
    area = region.mean(axis=1)
    known = (area > 0) & (area < 1)
    scores = pointing_game(flat, region), relevance_mass(flat, region), roc_auc(flat, region)
    return Localisation(*(np.where(known, score, np.nan) for score in scores), area)


def pointing_game(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns whether the most relevant place lies inside (Zhang et al. 2016), float64 [n].

    Of several equal peaks: the share of them that do. No tolerance is added around the region:
    which patches belong to it is for `inside` to say.

    Args:
      maps: float [n, places].
      inside: bool [n, places].
    """
    peaks = maps == maps.max(axis=1, keepdims=True)
    return (peaks & inside).sum(axis=1) / peaks.sum(axis=1)


def relevance_mass(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns the share of the relevance that lies inside (Arras et al. 2022), float64 [n].

    Args:
      maps: float [n, places], non-negative; without any relevance it counts as spread evenly.
      inside: bool [n, places].
    """
    total = maps.sum(axis=1)
    empty = total <= 0
    share = (maps * inside).sum(axis=1) / np.where(empty, 1, total)
    return np.where(empty, inside.mean(axis=1), share)


def roc_auc(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns the chance that a place inside ranks above one outside, ties half; float64 [n].

    Args:
      maps: float [n, places].
      inside: bool [n, places]; NaN where a clip has only one of the two.
    """
    ranks = rankdata(maps, axis=1)
    positive = inside.sum(axis=1)
    pairs = positive * (inside.shape[1] - positive)
    above = (ranks * inside).sum(axis=1) - positive * (positive + 1) / 2
    return np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan)


def patch_cover(boxes: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Returns the share of every patch's area that a box covers, float64 [..., h, w].

    Args:
      boxes: float [..., 4], x0 y0 x1 y1 as shares of the picture's width and height; they may
        reach beyond it.
      grid: h, w patches.
    """

    def along(low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
        edges = np.arange(count + 1) / count
        shared = np.minimum(high[..., None], edges[1:]) - np.maximum(low[..., None], edges[:-1])
        return np.clip(shared * count, 0, 1)

    x0, y0, x1, y1 = np.moveaxis(np.asarray(boxes, np.float64), -1, 0)
    rows, columns = along(y0, y1, grid[0]), along(x0, x1, grid[1])
    return rows[..., :, None] * columns[..., None, :]
