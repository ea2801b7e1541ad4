"""What a face looks like, as colours: enough to tell two people of one recording apart."""

import cv2
import numpy as np

from data_prep.faces.boxes import squares

# Bhattacharyya coefficient, from 0 to 1, of what is taken for one face.
SAME = 0.85
_BINS = (6, 8, 8)  # lightness, green to red, blue to yellow


def colours(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns a histogram of the colours of a face with what is close to it, float32 [S], sum 1.

    Args:
      picture: uint8 [H, W, 3] RGB.
      box: float [4] in its pixels.
    """
    x, y, side = squares(np.asarray(box)[None])[0]
    height, width = picture.shape[:2]
    left, right = np.clip([x - 0.5 * side, x + 0.5 * side], 0, width).astype(int)
    top, bottom = np.clip([y - 0.6 * side, y + 0.8 * side], 0, height).astype(int)
    if right - left < 2 or bottom - top < 2:
        return np.full(np.prod(_BINS), 1 / np.prod(_BINS), np.float32)
    part = cv2.cvtColor(picture[top:bottom, left:right], cv2.COLOR_RGB2LAB)
    histogram = cv2.calcHist([part], [0, 1, 2], None, _BINS, [0, 256, 96, 176, 96, 176])
    # Between bins: a little more light must not make another person.
    histogram = cv2.GaussianBlur(histogram.reshape(_BINS[0], -1), (0, 0), 0.6).reshape(-1)
    return histogram / max(float(histogram.sum()), 1e-6)


def same_colours(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the Bhattacharyya coefficient of two histograms, from 0 to 1."""
    return float(np.sqrt(one * other).sum())
