"""Anti-aliased text and boxes on numpy images, in the typeface that matplotlib ships."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont


class Pen:
    """Draws on a copy of an image; sizes and positions are in pixels and may be fractional."""

    def __init__(self, image: np.ndarray):
        self._image = Image.fromarray(image)
        self._draw = ImageDraw.Draw(self._image)

    def image(self) -> np.ndarray:
        """Returns what was drawn so far: uint8 [H, W, 3]."""
        return np.array(self._image)

    def text(self, at, text: str, size: float, color, bold: bool = False) -> None:
        """Writes `text` with its baseline's left end at (x, y)."""
        self._draw.text(at, text, fill=color, font=_font(_whole(size), bold), anchor="ls")

    def width(self, text: str, size: float, bold: bool = False) -> float:
        """Returns the length of `text` in pixels."""
        return _font(_whole(size), bold).getlength(text)

    def fitting(self, text: str, size: float, width: float, bold: bool = False) -> float:
        """Returns the largest size, 6 to `size`, at which `text` is no longer than `width`."""
        while size > 6 and self.width(text, size, bold) > width:
            size -= 1
        return size

    def box(self, corners, color) -> None:
        """Fills x0, y0, x1, y1."""
        x0, y0, x1, y1 = (round(c) for c in corners)
        self._draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), fill=color)

    def bar(self, corners, share: float, color) -> None:
        """Fills the left `share` of x0, y0, x1, y1; an empty share draws nothing."""
        x0, y0, x1, y1 = corners
        end = x0 + min(max(share, 0.0), 1.0) * (x1 - x0)
        if round(end) > round(x0):
            self.box((x0, y0, end, y1), color)

    def line(self, start, end, color, width: int) -> None:
        """Draws a straight line."""
        self._draw.line((*start, *end), fill=color, width=width)


def _whole(size):
    return max(6, round(size))


@functools.lru_cache(maxsize=64)
def _font(size, bold):
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / name), size)
