"""Whether two sides of a benchmark do the same work: their answers to one batch compared."""

import numpy as np

# What is compared by task, and the largest difference allowed by dtype, as a share of the largest
# value there. bfloat16 has three digits; after an update losses also differ by what AdamW makes of
# gradients near zero, whose sign is all that its first step keeps.
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
# Of a clip's relevance: a tenth of its places may be off by more in bfloat16, which has three
# digits for attention and its gradient each; its order must hold.
_CORRELATION = {"float32": 0.9999, "bfloat16": 0.98}


class Disagreement(Exception):
    """Sides do not do the same; one line that says what was found."""


def checked_agreement(
    task: str, dtype: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], side: str
) -> dict[str, float]:
    """Compares what a side answered with ours.

    Args:
      task, dtype: of the case.
      ours, theirs: arrays by name; theirs may be of the first clips only.
      side: its name, for the message.

    Returns:
      "difference", the largest as a share of the largest value, and "tolerance"; {} for the input,
      whose slices are random.

    Raises:
      Disagreement: what is missing, of another shape, not finite, or too different.
    """
    if task == "input":
        return {}
    name = _COMPARED[task]
    tolerance = _TOLERANCE[task][dtype]
    if name not in theirs:
        raise Disagreement(f"parity failed: {side} gave no {name}")
    a, b = (np.asarray(arrays[name], np.float64) for arrays in (ours, theirs))
    if b.ndim != a.ndim or b.shape[1:] != a.shape[1:] or not 0 < len(b) <= len(a):
        raise Disagreement(
            f"parity failed: {name} of {side} are {list(b.shape)}, those of aver_jax "
            f"{list(a.shape)}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise Disagreement(f"parity failed: {name} of {side} or of aver_jax are not all finite")
    a = a[: len(b)]
    found = {"difference": _largest_difference(a, b), "tolerance": tolerance}
    if task == "relevance":
        found["correlation"] = min(_correlation(x, y) for x, y in zip(a, b, strict=True))
        if found["correlation"] < _CORRELATION[dtype]:
            raise Disagreement(
                f"parity failed: maps of {side} correlate with those of aver_jax by "
                f"{found['correlation']:.4f}; expected at least {_CORRELATION[dtype]}"
            )
    if found["difference"] > tolerance:
        raise Disagreement(
            f"parity failed: {name} of {side} differ from those of aver_jax by "
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
