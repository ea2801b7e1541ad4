"""Scores of a classifier: accuracy, recall, F1, likelihood and calibration, in plain numpy.

Scores that depend on decisions alone are functions of a confusion matrix and accept any number
of leading axes, so that thousands of bootstrap replicates are scored in one call. A share whose
denominator is empty is NaN, never 0: it was not measured.
"""

import dataclasses

import numpy as np
import scipy.optimize

CALIBRATION_BINS = 15
TEMPERATURE_RANGE = (0.05, 20.0)


def confusion_matrix(labels, predictions, num_classes: int) -> np.ndarray:
    """Counts of (true, predicted) pairs.

    Args:
      labels: int [n], each in [0, num_classes).
      predictions: int [n], each in [0, num_classes).
      num_classes: C.

    Returns:
      int64 [C, C]; rows are the true class, columns the predicted one.

    Raises:
      ValueError: if the lengths differ or a class lies outside the range.
    """
    labels, predictions = _checked_classes(labels, predictions, num_classes)
    pairs = labels * num_classes + predictions
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def grouped_confusion(labels, predictions, groups, num_classes: int):
    """Returns one confusion matrix per group (an actor, a sex).

    Args:
      labels: int [n].
      predictions: int [n].
      groups: [n] of any sortable dtype.
      num_classes: C.

    Returns:
      The group names [G], sorted, and int64 counts [G, C, C].
    """
    labels, predictions = _checked_classes(labels, predictions, num_classes)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if index.shape != labels.shape:
        raise ValueError(f"{index.size} groups for {labels.size} labels")
    cells = num_classes * num_classes
    flat = index * cells + labels * num_classes + predictions
    counts = np.bincount(flat, minlength=len(names) * cells)
    return names, counts.reshape(len(names), num_classes, num_classes).astype(np.int64)


def war(confusion) -> np.ndarray:
    """Returns weighted average recall, which is accuracy: the share of clips that are right.

    Args:
      confusion: counts [..., C, C].

    Returns:
      float64 [...]; NaN where there are no clips.
    """
    confusion = np.asarray(confusion, np.float64)
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    return _share(hits, confusion.sum((-2, -1)))


def per_class_recall(confusion) -> np.ndarray:
    """Returns the share of each class' clips that are recognised.

    Args:
      confusion: counts [..., C, C].

    Returns:
      float64 [..., C]; NaN for a class without clips.
    """
    confusion = np.asarray(confusion, np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _share(hits, confusion.sum(-1))


def uar(confusion) -> np.ndarray:
    """Returns the unweighted average recall: the mean recall of the classes that have clips.

    Classes without clips are left out, as in scikit-learn's `balanced_accuracy_score`.

    Args:
      confusion: counts [..., C, C].

    Returns:
      float64 [...]; NaN where there are no clips.
    """
    return _mean_of_known(per_class_recall(confusion))


def per_class_f1(confusion) -> np.ndarray:
    """Returns the harmonic mean of precision and recall of each class.

    Args:
      confusion: counts [..., C, C].

    Returns:
      float64 [..., C]; NaN for a class that is neither present nor predicted.
    """
    confusion = np.asarray(confusion, np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _share(2 * hits, confusion.sum(-1) + confusion.sum(-2))


def macro_f1(confusion) -> np.ndarray:
    """Returns the mean F1 of the classes present or predicted, as scikit-learn's "macro".

    Args:
      confusion: counts [..., C, C].

    Returns:
      float64 [...]; NaN where there are no clips.
    """
    return _mean_of_known(per_class_f1(confusion))


def log_softmax(logits) -> np.ndarray:
    """Returns log probabilities [..., C] float64 of logits [..., C]."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def negative_log_likelihood(logits, labels) -> np.ndarray:
    """Returns the cross-entropy of each clip, in nats; the mean over clips is the loss.

    Args:
      logits: float [n, C].
      labels: int [n].

    Returns:
      float64 [n].
    """
    log_probabilities, labels = log_softmax(logits), np.asarray(labels)
    return -np.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Clips sorted by confidence into equal-width bins (lower, upper].

    Attributes:
      edges: float64 [bins + 1], from 0 to 1.
      count: int64 [bins], clips in the bin.
      confidence: float64 [bins], mean probability of the predicted class; NaN if empty.
      accuracy: float64 [bins], share of right predictions; NaN if empty.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error in [0, 1] (Guo et al. 2017, section 2); NaN without clips."""
        total = self.count.sum()
        if not total:
            return float("nan")
        gaps = np.abs(np.nan_to_num(self.accuracy) - np.nan_to_num(self.confidence))
        return float((self.count * gaps).sum() / total)


def reliability(probabilities, labels, bins: int = CALIBRATION_BINS) -> Reliability:
    """Bins confidence and accuracy (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    Args:
      probabilities: float [n, C], rows summing to 1.
      labels: int [n].
      bins: number of equal-width bins; 15 in the paper.

    Returns:
      The filled bins.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    confidence = probabilities.max(-1)
    right = (probabilities.argmax(-1) == labels).astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    return Reliability(
        edges=edges,
        count=count,
        confidence=_share(np.bincount(index, confidence, minlength=bins), count),
        accuracy=_share(np.bincount(index, right, minlength=bins), count),
    )


def fit_temperature(logits, labels) -> float:
    """Returns the temperature T that minimises the cross-entropy of `logits / T`.

    Guo et al. 2017, section 4.2. Where no finite minimum exists (every clip right, or worse than
    chance at every temperature), it is the nearer end of `TEMPERATURE_RANGE`.

    Args:
      logits: float [n, C] of clips that the model was not trained on (the validation split).
      labels: int [n].

    Returns:
      T > 0; above 1 for an overconfident model.

    Raises:
      ValueError: without clips.
    """
    if not np.size(labels):
        raise ValueError("no clips to fit a temperature on")
    # log_softmax(z) / T and z / T differ by a constant per clip: the same probabilities.
    # Probabilities that underflowed to 0 would make 0 * -inf.
    log_probabilities = np.maximum(log_softmax(logits), -1e4)
    target = np.take_along_axis(log_probabilities, np.asarray(labels)[:, None], axis=-1)[:, 0]

    def slope(log_temperature):
        probabilities = np.exp(log_softmax(log_probabilities / np.exp(log_temperature)))
        return ((probabilities * log_probabilities).sum(-1) - target).mean()

    # The cross-entropy is convex in 1 / T: its slope changes sign at most once.
    low, high = np.log(TEMPERATURE_RANGE)
    if slope(low) <= 0:
        return TEMPERATURE_RANGE[0]
    if slope(high) >= 0:
        return TEMPERATURE_RANGE[1]
    return float(np.exp(scipy.optimize.brentq(slope, low, high)))


def _checked_classes(labels, predictions, num_classes):
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} must be [n]")
    for name, values in (("label", labels), ("prediction", predictions)):
        if values.size and not (values.min() >= 0 and values.max() < num_classes):
            found = f"[{values.min()}, {values.max()}]"
            raise ValueError(f"{name} in {found}, expected [0, {num_classes - 1}]")
    return labels.astype(np.int64), predictions.astype(np.int64)


def _share(part, whole):
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean_of_known(values):
    known = ~np.isnan(values)
    return _share(np.where(known, values, 0.0).sum(-1), known.sum(-1))
