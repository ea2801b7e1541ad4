"""A gallery of one clip's relevance: frames in columns, methods in rows; and relevance over time.

Colours are those of every heat map of the house (`overlay.heat_colors`): inferno without its black
end, perceptually uniform, its lightness rising with relevance, so that it reads the same in grey.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from aver_jax.report.draw_text import Pen
from aver_jax.report.figures import LIGHT, Theme, new_figure, themed
from aver_jax.report.overlay import BACKGROUND, heat_at, heat_colors, heat_overlay
from aver_jax.report.timeline import COLORS

_GAP = 4
_LETTERS, _QUIET = (232, 235, 242), (150, 158, 172)
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


@dataclasses.dataclass(frozen=True)
class Row:
    """A method's maps of one clip.

    Attributes:
      name: of the method.
      maps: float [T', h, w] in 0..1, scaled over the whole clip.
      times: float [T'], seconds of the maps.
      shares: float [T'], share of all relevance in each frame, before scaling.
      flat: what to say where the maps hold nothing; empty where they do.
    """

    name: str
    maps: np.ndarray
    times: np.ndarray
    shares: np.ndarray
    flat: str = ""


def gallery(frames, frame_times, rows: Sequence[Row], side: int = 112) -> np.ndarray:
    """Returns the frames that the model saw in the first row, and a row of heat maps per method.

    Args:
      frames: uint8 [T, H, W, 3] RGB.
      frame_times: float [T], seconds, written above the columns.
      rows: of methods.
      side: of one picture in pixels.

    Returns:
      uint8 [h, w, 3] RGB on a dark ground, the scale of colours at its foot.
    """
    size = max(9.0, 0.115 * side)
    pictures = [_sized(frame, side) for frame in np.asarray(frames)]
    left = round(max(Pen(np.zeros((1, 1, 3), np.uint8)).width(r.name, size) for r in rows)) + 20
    head, foot = round(2.2 * size), round(3.2 * size)
    height = head + (1 + len(rows)) * (side + _GAP) + foot
    sheet = np.empty((height, left + len(pictures) * (side + _GAP), 3), np.uint8)
    sheet[:] = BACKGROUND
    for y, row in enumerate([None, *rows]):
        top = head + y * (side + _GAP)
        for x, (picture, time) in enumerate(zip(pictures, frame_times, strict=True)):
            if row is not None:
                picture = heat_overlay(picture, heat_at(float(time), row.times, row.maps))
            sheet[top : top + side, left + x * (side + _GAP) :][:, :side] = picture
    ramp = heat_colors(np.linspace(0, 1, 2 * side))[None]
    y = height - foot + round(1.1 * size)
    sheet[y : y + round(0.8 * size), left : left + ramp.shape[1]] = ramp
    pen = Pen(sheet)
    for x, time in enumerate(frame_times):
        pen.text((left + x * (side + _GAP) + 2, 1.4 * size), f"{time:.2f} s", size, _QUIET)
    for y, row in enumerate([None, *rows]):
        middle = head + y * (side + _GAP) + side / 2
        pen.text((10, middle + size / 3), row.name if row else "frame", size, _LETTERS)
        if row is not None and row.flat:
            room = pen.fitting(row.flat, 0.8 * size, left - 14)
            pen.text((10, middle + 1.6 * size), row.flat, room, _QUIET)
    y = height - foot + 1.8 * size
    pen.text((10, y), "relevance", size, _QUIET)
    words = "0 to 1: lowest to highest of the clip, each method by itself"
    pen.text((left + ramp.shape[1] + 10, y), words, size, _QUIET)
    return pen.image()


def profile_figure(rows: Sequence[Row], theme: Theme = LIGHT) -> Figure:
    """Returns the share of relevance in each frame over the clip's seconds, a line per method.

    The dashed level is the same share for every frame, of the finest time axis.
    """
    with themed(theme):
        figure = new_figure(9.6, 0.9 + 0.2 * max(11, len(rows)))
        axes = figure.add_subplot()
        styles = itertools.product(_DASHES, COLORS)
        for row, (dash, color) in zip(rows, itertools.cycle(styles), strict=False):
            # A map that holds nothing has no share of anything.
            if row.flat and not row.shares.any():
                continue
            axes.plot(row.times, row.shares, color=color, linestyle=dash, label=row.name,
                      marker="o", markersize=3, linewidth=1.5)  # fmt: skip
        frames = max(len(row.times) for row in rows)
        axes.axhline(1 / frames, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlabel="seconds", ylabel="share of the clip's relevance")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3)
    return figure


def _sized(picture, side):
    method = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(picture, (side, side), interpolation=method)
