"""Trivial models: logistic regression and an SVM on features of clips, over disjoint actors."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

FOLDS = 5
_SAMPLES = 1000
_LEVEL = 0.95


def models() -> dict[str, Any]:
    """Returns the unfitted models by name; C as in ../docs/audit.md."""
    return {
        "logistic regression": make_pipeline(
            StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
        ),
        "SVM": make_pipeline(StandardScaler(), SVC(C=10, kernel=_rbf)),
    }


def _rbf(x: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Returns SVC's kernel with gamma "scale", as one product of matrices.

    On 6,000 clips the pairs one by one, as SVC takes them itself, need nine times as long.
    """
    variance = trained.var()
    return rbf_kernel(x, trained, 1 / (trained.shape[1] * variance) if variance else 1.0)


def fitted(model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Returns `model` fitted to x [n, D], y [n], or the constant answer where y has one value."""
    if len(np.unique(y)) == 1:
        return _Constant(y[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


class _Constant:
    def __init__(self, answer):
        self._answer = answer

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self._answer)


def folds_of(y: np.ndarray, groups: np.ndarray | None) -> int:
    """Returns into how many folds `out_of_fold` deals clips or, given groups, actors."""
    if groups is None:
        return int(max(2, min(FOLDS, np.unique(y, return_counts=True)[1].min())))
    return min(FOLDS, len(np.unique(groups)))


def out_of_fold(model: Any, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Returns a prediction for each clip by a model that has not seen it.

    Args:
      model: of `models`.
      x: float [n, D].
      y: [n] what is to be told.
      groups: [n] actors, of whom none is in two folds; None deals clips, each value of y evenly.
    """
    if groups is None:
        with warnings.catch_warnings():  # a class of one clip is in one fold alone
            warnings.simplefilter("ignore", UserWarning)
            parts = StratifiedKFold(folds_of(y, None), shuffle=True, random_state=0)
            parts = list(parts.split(x, y))
    else:
        parts = GroupKFold(folds_of(y, groups)).split(x, y, groups)
    predictions = np.empty_like(y)
    for train, test in parts:
        predictions[test] = fitted(model, x[train], y[train]).predict(x[test])
    return predictions


def accuracy(right: np.ndarray, actors: np.ndarray) -> dict[str, float | None]:
    """Returns the share of right clips with a 95% interval that resamples actors.

    Args:
      right: bool [n].
      actors: [n].

    Returns:
      value, low, high; the ends None with fewer than 2 actors.
    """
    names, index = np.unique(actors, return_inverse=True)
    if len(names) < 2:
        return {"value": float(right.mean()), "low": None, "high": None}
    hits = np.bincount(index, right)
    clips = np.bincount(index)
    drawn = np.random.default_rng(0).integers(len(names), size=(_SAMPLES, len(names)))
    shares = hits[drawn].sum(1) / clips[drawn].sum(1)
    low, high = np.quantile(shares, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return {"value": float(right.mean()), "low": float(low), "high": float(high)}


def chance(y: np.ndarray) -> float:
    """Returns the share of the most frequent value."""
    return float(np.unique(y, return_counts=True)[1].max() / len(y))


def majority_of_each(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns for each clip the most frequent value among the clips of its group, itself included.

    An upper bound of what knowing the actor tells. Predicted for a held-out clip it would come out
    below chance on a balanced dataset: its own class is the one that the rest has less of.
    """
    predictions = np.empty_like(y)
    for group in np.unique(groups):
        own = groups == group
        values, counts = np.unique(y[own], return_counts=True)
        predictions[own] = values[counts.argmax()]
    return predictions
