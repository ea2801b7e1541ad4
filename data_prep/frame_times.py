"""Frames and their time stamps: which is shown when, and for how long. Needs numpy alone."""

import numpy as np


def lasting(timestamps: np.ndarray) -> np.ndarray:
    """Returns for how many seconds each frame is shown, float64 [F]; the last for the median."""
    times = np.asarray(timestamps, np.float64)
    steps = np.diff(times)
    return np.append(steps, np.median(steps) if len(steps) else 1 / 30)[: len(times)]


def nearest_frames(timestamps: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Returns the frame nearest in time to each moment, int64 [n]; of two the earlier one.

    Args:
      timestamps: float [F], F >= 1, ascending, seconds.
      moments: float [n], seconds.
    """
    times = np.asarray(timestamps, np.float64)
    return np.searchsorted((times[1:] + times[:-1]) / 2, moments, side="left")
