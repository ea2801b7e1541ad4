"""Where in a clip a model looks: time slices, views, and evenly spaced frames, by timestamp."""

import numpy as np

from aver_jax.errors import UserError
from data_prep.frame_times import nearest_frames


def centre_window(start: float, stop: float, max_seconds: float) -> tuple[float, float]:
    """Returns (start, stop) seconds of what a clip is cut to: all, or its middle `max_seconds`."""
    margin = max(0.0, (stop - start - max_seconds) / 2)
    return start + margin, stop - margin


def time_slice(rng: np.random.Generator, min_share: float) -> tuple[float, float]:
    """Returns a random slice of a clip, as shares of its length (thesis 4.5.2, 5.3.3).

    Args:
      rng: the source of the two draws; the first is the length, the second the place.
      min_share: 0 < min_share <= 1; the slice's length is U(min_share, 1) of the clip.

    Returns:
      (start, stop), 0 <= start < stop <= 1; start is uniform over what the length leaves.

    Raises:
      UserError: min_share is outside (0, 1].
    """
    if not 0 < min_share <= 1:
        raise UserError(
            f"min_slice is {min_share}, expected a share of the clip in (0, 1]; 1 turns slicing off"
        )
    length = 1 - (1 - min_share) * rng.random()
    start = (1 - length) * rng.random()
    return start, start + length


def view_slices(views: int, share: float = 0.75) -> np.ndarray:
    """Returns the slices at which evaluation looks, as shares of a clip's length.

    Args:
      views: >= 1. One view is the whole clip; several are slices of length `share`, the first at
        the clip's start, the last at its end, the others evenly between.
      share: length of a slice when there are several; the default is the mean length of training
        slices with min_share .5.

    Returns:
      float64 [views, 2], start and stop.

    Raises:
      UserError: views < 1.
    """
    if views < 1:
        raise UserError(f"views is {views}, expected at least 1; 1 evaluates the whole clip once")
    if views == 1:
        return np.array([[0.0, 1.0]])
    starts = np.linspace(0.0, 1.0 - share, views)
    return np.stack([starts, starts + share], axis=1)


def frame_indices(timestamps: np.ndarray, start: float, stop: float, num_frames: int) -> np.ndarray:
    """Returns the frames nearest to the centres of `num_frames` equal parts of [start, stop].

    By time and not by position, since clips drop frames and start late; at the centres, so that
    the first and last frame, where a face is at rest, are not always among them.

    Args:
      timestamps: float [F], F >= 1, ascending, seconds.
      start: seconds.
      stop: seconds, > start.
      num_frames: T; frames repeat where the interval holds fewer.

    Returns:
      int64 [T], ascending; of two equally near frames the earlier one.
    """
    centres = start + (np.arange(num_frames) + 0.5) * ((stop - start) / num_frames)
    return nearest_frames(timestamps, centres)


def frames_of_many(
    timestamps: np.ndarray, start: np.ndarray, stop: np.ndarray, num_frames: int
) -> np.ndarray:
    """Returns `frame_indices` of many clips with equally many frames.

    Args:
      timestamps: float [b,F], F >= 1, ascending, seconds.
      start: float64 [b], seconds.
      stop: float64 [b], seconds, > start.
      num_frames: T.

    Returns:
      int64 [b,T].
    """
    centres = (
        start[:, None] + (np.arange(num_frames) + 0.5) * ((stop - start) / num_frames)[:, None]
    )
    times = np.asarray(timestamps, np.float64)
    between = (times[:, 1:] + times[:, :-1]) / 2
    return (between[:, None, :] < centres[:, :, None]).sum(-1)
