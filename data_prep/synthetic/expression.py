"""Facial expressions as action units (FACS): what each emotion shows, where, and when."""

import numpy as np

# Action units (Ekman, Friesen & Hager 2002), by the facial part that shows them. AU43 is the
# drooping lid, AU61-64 are folded into "gaze" (positive looks down). Nose units 38 (dilated) and
# 39 (compressed) are real ones; "tip" (down positive) and "redness" give the nose six states, so
# that it can carry a label alone.
PARTS = {
    "eyes": ("AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU43", "gaze"),
    "nose": ("AU9", "AU38", "AU39", "tip", "redness"),
    "mouth": ("AU10", "AU12", "AU15", "AU16", "AU17", "AU20", "AU24", "AU25", "AU26"),
}
UNITS = tuple(unit for units in PARTS.values() for unit in units)

# After the EMFACS prototypes; the nose column is ours beyond AU9 and AU38.
EMOTIONS: dict[str, dict[str, float]] = {
    "NEU": {},
    "ANG": {
        "AU4": 1.0, "AU5": 0.45, "AU7": 0.75, "AU38": 0.9, "AU9": 0.15,
        "AU24": 0.75, "AU17": 0.3, "AU15": 0.2, "AU10": 0.15,
    },
    "DIS": {
        "AU4": 0.5, "AU6": 0.4, "AU7": 1.0, "AU43": 0.25, "AU9": 1.0, "AU38": 0.2,
        "AU10": 1.0, "AU15": 0.35, "AU17": 0.25, "AU25": 0.15, "AU16": 0.2,
    },
    "FEA": {
        "AU1": 1.0, "AU2": 0.7, "AU4": 0.35, "AU5": 1.0, "AU39": 0.9, "tip": -0.3,
        "AU20": 0.95, "AU25": 0.5, "AU26": 0.3, "AU16": 0.5,
    },
    "HAP": {
        "AU6": 0.95, "AU7": 0.15, "AU2": 0.15, "AU1": 0.12, "AU38": 0.35, "tip": 0.7,
        "AU12": 1.0, "AU25": 0.45, "AU10": 0.1,
    },
    "SAD": {
        "AU1": 0.95, "AU4": 0.5, "AU43": 0.55, "gaze": 0.6, "redness": 0.6, "tip": 0.25,
        "AU15": 1.0, "AU17": 0.75,
    },
    "SUR": {
        "AU1": 0.9, "AU2": 1.0, "AU5": 0.9, "tip": -0.8, "AU25": 0.5, "AU26": 1.0,
    },
    "CAL": {
        "AU43": 0.5, "AU12": 0.32, "AU2": 0.1, "AU39": 0.3, "tip": 0.35,
    },
}  # fmt: skip

CARRIERS = {
    "all": ("eyes", "nose", "mouth"),
    "eyes": ("eyes",),
    "nose": ("nose",),
    "mouth": ("mouth",),
    "eyes+nose": ("eyes", "nose"),
    "eyes+mouth": ("eyes", "mouth"),
    "nose+mouth": ("nose", "mouth"),
}


def unit_weights(
    emotions: dict[str, float], carrier: str, rng: np.random.Generator
) -> dict[str, float]:
    """Returns action units at the apex.

    Args:
      emotions: strength of each emotion shown, 0..1 (several make a blend).
      carrier: a key of `CARRIERS`; units of other parts stay at rest.
      rng: draws how this performance differs from the prototype.
    """
    # One draw per unit, whatever is shown, keeps clips that differ in emotion alone comparable.
    performed = dict(zip(UNITS, rng.uniform(0.85, 1.12, len(UNITS)), strict=True))
    weights = dict.fromkeys(UNITS, 0.0)
    for emotion, strength in emotions.items():
        for unit, amount in EMOTIONS[emotion].items():
            weights[unit] += strength * amount * performed[unit]
    shown = {unit for part in CARRIERS[carrier] for unit in PARTS[part]}
    return {u: float(np.clip(w, -1.2, 1.2)) if u in shown else 0.0 for u, w in weights.items()}


def envelope(times: np.ndarray, start: float, stop: float, onset: float, offset: float):
    """Returns onset, apex and offset: rises from `start`, is back at rest at `stop` (all seconds).

    Returns float64, shape of `times`, 0..1.
    """

    def smooth(x):
        x = np.clip(x, 0.0, 1.0)
        return x * x * (3 - 2 * x)

    return smooth((times - start) / onset) * smooth((stop - times) / offset)


def blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the closure of the lids, 0 open .. 1 shut, float64 [F]; a blink lasts about 0.2 s."""
    closure = np.zeros_like(times)
    at = rng.exponential(1.6) + 0.15
    while at < times[-1]:
        closure = np.maximum(closure, np.clip(1.25 * (1 - np.abs(times - at) / 0.1), 0, 1))
        at += 0.6 + rng.exponential(2.2)
    return closure
