"""Comparison of outputs: whether another implementation does the same work as aver_jax."""

import numpy as np

# The compared output of each task, and the largest difference allowed for each dtype, relative to
# the largest value. bfloat16 has three digits; losses after an update differ more, since the first
# step of AdamW keeps only the sign of gradients near zero.
_COMPARED = {
    "train": "losses",
    "inference": "logits",
    "relevance": "maps",
    "spectrogram": "audio",
    "augmentation": "frames",
}
_TOLERANCE = {
    "train": {"float32": 2e-3, "bfloat16": 3e-2},
    "inference": {"float32": 1e-3, "bfloat16": 5e-2},
    "relevance": {"float32": 5e-3, "bfloat16": 2e-1},
    "spectrogram": {"float32": 1e-3},
    "augmentation": {"float32": 2e-3},
}
# The least correlation of a clip's relevance maps: single places may differ more in bfloat16, their
# order must not.
_CORRELATION = {"float32": 0.9999, "bfloat16": 0.98}


class Disagreement(Exception):
    """Outputs differ too much; one line that says how."""


def checked_agreement(
    task: str, dtype: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], name: str
) -> dict[str, float]:
    """Returns how much the outputs of another implementation differ from ours.

    Args:
      task, dtype: of the case.
      ours, theirs: arrays by name; theirs may hold only the first clips.
      name: the other implementation, for messages.

    Returns:
      "difference", the largest relative to the largest value, and "tolerance"; for relevance also
      "correlation", the least of any clip; {} for the input task, whose slices are random.

    Raises:
      Disagreement: outputs are missing, of another shape, not finite, or too different.
    """
    if task == "input":
        return {}
    output = _COMPARED[task]
    tolerance = _TOLERANCE[task][dtype]
    if output not in theirs:
        raise Disagreement(f"parity failed: {name} gave no {output}")
    a, b = (np.asarray(arrays[output], np.float64) for arrays in (ours, theirs))
    if b.ndim != a.ndim or b.shape[1:] != a.shape[1:] or not 0 < len(b) <= len(a):
        raise Disagreement(
            f"parity failed: {output} of {name} are {list(b.shape)}, those of aver_jax "
            f"{list(a.shape)}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise Disagreement(f"parity failed: {output} of {name} or of aver_jax are not all finite")
    a = a[: len(b)]
    found = {"difference": _largest_difference(a, b), "tolerance": tolerance}
    if task == "relevance":
        found["correlation"] = min(_correlation(x, y) for x, y in zip(a, b, strict=True))
        if found["correlation"] < _CORRELATION[dtype]:
            raise Disagreement(
                f"parity failed: maps of {name} correlate with those of aver_jax by "
                f"{found['correlation']:.4f}; expected at least {_CORRELATION[dtype]}"
            )
    if found["difference"] > tolerance:
        raise Disagreement(
            f"parity failed: {output} of {name} differ from those of aver_jax by "
            f"{found['difference']:.2g} of the largest; expected at most {tolerance:g}"
        )
    if task == "train" and np.ptp(a) <= 2 * tolerance * np.abs(a).max():
        raise Disagreement(
            f"parity failed: the losses move by {np.ptp(a):.2g} in {len(a)} steps, too little to "
            "show that the updates agree"
        )
    return found


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float(np.array_equal(a, b))
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
