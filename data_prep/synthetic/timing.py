"""When things happen in a clip: its length, the span of the label, movements that mean nothing."""

from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.expression import envelope


@dataclass(frozen=True)
class Window:
    """One expression in time, seconds: leaves rest at `start`, is back at `stop`; the lengths of
    its onset and its offset."""

    start: float
    stop: float
    onset: float
    offset: float

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """Returns the share that shows, 0..1, float64, shape of `times` (seconds)."""
        return envelope(times, self.start, self.stop, self.onset, self.offset)

    @property
    def half(self) -> tuple[float, float]:
        """When half of the expression is reached, and left; seconds."""
        return self.start + self.onset / 2, self.stop - self.offset / 2


def draw_window(
    start: float,
    stop: float,
    timing: float,
    rng: np.random.Generator,
    shares: tuple[float, float] = (0.36, 0.52),
) -> Window:
    """Returns a window within `start` to `stop` (seconds).

    Args:
      start, stop: where the expression may show.
      timing: 0..1; 0: it fills them; 1: it takes a share of them, anywhere.
      rng: draws length and place.
      shares: smallest and largest share at timing 1.
    """
    length = stop - start
    share = 1 - timing * (1 - rng.uniform(*shares))
    first = start + rng.uniform(0, 1 - share) * length
    last = first + share * length
    onset, offset = (rng.uniform(low, 0.3) * min(1.0, last - first) for low in (0.15, 0.12))
    return Window(first, last, onset, offset)


# Movements that come with talk and thought: units that move together, alone no emotion.
_FIDGETS = (
    {"AU1": 0.8, "AU2": 0.9}, {"AU4": 0.8}, {"AU7": 0.7}, {"AU12": 0.6}, {"AU24": 0.8},
    {"AU17": 0.7}, {"AU15": 0.5}, {"AU9": 0.4}, {"gaze": 0.8}, {"AU20": 0.5}, {"AU5": 0.5},
    {"AU38": 0.6}, {"tip": 0.4},
)  # fmt: skip


def fidgets(times: np.ndarray, amount: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns brief movements by action unit, float64 [F] each; about three in two seconds.

    Args:
      times: seconds of the frames, float64 [F].
      amount: 1: up to a third of a full movement.
      rng: draws which, when, and how much.
    """
    moved: dict[str, np.ndarray] = {}
    for _ in range(rng.poisson(1.6 * times[-1])):
        units = _FIDGETS[rng.integers(len(_FIDGETS))]
        at, long = rng.uniform(0, times[-1]), rng.uniform(0.25, 0.5)
        size = amount * rng.uniform(0.1, 0.32)
        shape = envelope(times, at - long / 2, at + long / 2, long / 2, long / 2)
        for unit, weight in units.items():
            moved[unit] = moved.get(unit, 0.0) + size * weight * shape
    return moved if amount else {}
