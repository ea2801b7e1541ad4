"""Still pictures of clips: the frames a model saw, plain and with their heat maps."""

from collections.abc import Sequence

import cv2
import numpy as np

from aver_jax.report.draw_text import Pen
from aver_jax.report.overlay import BACKGROUND, heat_overlay

_GAP = 6
_LETTERS = (120, 128, 142)


def filmstrip(frames, maps=None, times=None, side: int = 160) -> np.ndarray:
    """Returns the frames of one clip in a row; their heat maps, if given, in a second row.

    Args:
      frames: uint8 [T, H, W, 3] RGB, the crops that the model saw.
      maps: float [T, h, w] in [0, 1], or None.
      times: float [T] seconds, written under the frames, or None.
      side: width and height of one picture in pixels.

    Returns:
      uint8 [h, w, 3] RGB on a dark ground.
    """
    frames = np.asarray(frames)
    rows = [[_sized(frame, side) for frame in frames]]
    if maps is not None:
        rows.append([heat_overlay(p, heat) for p, heat in zip(rows[0], maps, strict=True)])
    footer = round(0.16 * side) if times is not None else 0
    width = len(frames) * (side + _GAP) - _GAP
    strip = np.empty((len(rows) * (side + _GAP) - _GAP + footer, width, 3), np.uint8)
    strip[:] = BACKGROUND
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = y * (side + _GAP), x * (side + _GAP)
            strip[top : top + side, left : left + side] = picture
    if times is None:
        return strip
    pen, size = Pen(strip), max(9, 0.085 * side)
    for x, time in enumerate(times):
        at = (x * (side + _GAP) + 4, strip.shape[0] - 0.3 * footer)
        pen.text(at, f"{time:.2f} s", size, _LETTERS)
    return pen.image()


def contact_sheet(pictures: Sequence, captions: Sequence[str], columns: int, side: int = 160):
    """Returns pictures in a grid, each with its caption below.

    Args:
      pictures: uint8 [H, W, 3] RGB each.
      captions: one per picture.
      columns: pictures in a row.
      side: width and height of one picture in pixels.

    Returns:
      uint8 [h, w, 3] RGB on a dark ground.
    """
    footer = round(0.17 * side)
    count = -(-len(pictures) // columns)
    shape = count * (side + footer) + (count - 1) * _GAP, columns * (side + _GAP) - _GAP, 3
    sheet = np.empty(shape, np.uint8)
    sheet[:] = BACKGROUND
    places = [
        (i // columns * (side + footer + _GAP), i % columns * (side + _GAP))
        for i in range(len(pictures))
    ]
    for picture, (top, left) in zip(pictures, places, strict=True):
        sheet[top : top + side, left : left + side] = _sized(picture, side)
    pen, size = Pen(sheet), max(9, 0.09 * side)
    for caption, (top, left) in zip(captions, places, strict=True):
        fitted = pen.fitting(caption, size, side - 8)
        pen.text((left + 4, top + side + 0.7 * footer), caption, fitted, _LETTERS)
    return pen.image()


def _sized(picture, side):
    method = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(picture, (side, side), interpolation=method)
