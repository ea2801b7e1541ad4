"""Anti-aliased drawing in face units: curves, filled shapes and lines with sub-pixel corners."""

import functools

import cv2
import numpy as np

_SHIFT = 4  # OpenCV takes fixed-point corners: 1/16 px


@functools.cache
def _basis(count: int, closed: bool, steps: int) -> np.ndarray:
    """Returns weights of `count` points in a Catmull-Rom curve, float64 [samples, count]."""
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    powers = np.concatenate([np.ones_like(t), t, t**2, t**3], axis=1)
    matrix = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    local = powers @ matrix
    spans = count if closed else count - 1
    weights = np.zeros((spans * steps + (not closed), count))
    for span in range(spans):
        for k, w in enumerate(local.T):
            point = span + k - 1
            point = point % count if closed else min(max(point, 0), count - 1)
            weights[span * steps : (span + 1) * steps, point] += w
    if not closed:
        weights[-1, -1] = 1.0
    return weights


def spline(points, closed: bool = False, steps: int = 6) -> np.ndarray:
    """Returns the Catmull-Rom curve through `points` [K, 2]: float64 [about K * steps, 2]."""
    return _basis(len(points), closed, steps) @ np.asarray(points, np.float64)


def shifted(points, dx: float, dy: float) -> np.ndarray:
    """Returns `points` [..., 2] moved by (dx, dy)."""
    return np.asarray(points, np.float64) + np.array((dx, dy))


def mirrored(points) -> np.ndarray:
    """Returns the outline of `points` [K, 2] (right half, top to bottom) and their mirror image."""
    points = np.asarray(points, np.float64)
    left = points[::-1] * (-1.0, 1.0)
    keep = np.abs(left[:, 0]) > 1e-9
    return np.concatenate([points, left[keep]])


class Canvas:
    """An image with a coordinate system: face units, x to the right, y down.

    Args:
      image: uint8 [H, W] or [H, W, 3], drawn on in place.
      scale: pixels per face unit.
      origin: pixel (x, y) of the point (0, 0).
    """

    def __init__(self, image: np.ndarray, scale: float, origin: tuple[float, float]):
        self.image = image
        self.scale = scale
        self.origin = np.asarray(origin, np.float64)

    def pixels(self, points) -> np.ndarray:
        """Returns `points` [..., 2] in face units as float64 pixel positions of this image."""
        return np.asarray(points, np.float64) * self.scale + self.origin

    def _fixed(self, points) -> np.ndarray:
        return (self.pixels(points) * (1 << _SHIFT) + 0.5).astype(np.int32)

    def fill(self, points, color) -> None:
        """Fills the polygon `points` [K, 2]."""
        cv2.fillPoly(self.image, [self._fixed(points)], color, cv2.LINE_AA, _SHIFT)

    def line(self, points, color, width: float) -> None:
        """Draws the open curve `points` [K, 2], `width` face units thick (at least one pixel)."""
        thickness = max(1, round(width * self.scale))
        fixed = [self._fixed(points)]
        cv2.polylines(self.image, fixed, False, color, thickness, cv2.LINE_AA, _SHIFT)

    def ellipse(self, center, axes, color, angle: float = 0.0) -> None:
        """Fills an ellipse: centre, half axes (face units), rotation in degrees."""
        center = self._fixed(center).tolist()
        axes = tuple(max(1, round(a * self.scale * (1 << _SHIFT))) for a in axes)
        cv2.ellipse(self.image, center, axes, angle, 0, 360, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)

    def view(self, low, high) -> tuple["Canvas", tuple[slice, slice]]:
        """Returns a canvas on the rectangle between two corners, sharing the pixels."""
        x0, y0 = (max(0, int(v)) for v in self.pixels(low).tolist())
        x1, y1 = (max(0, int(v) + 2) for v in self.pixels(high).tolist())
        window = (slice(y0, y1), slice(x0, x1))
        return Canvas(self.image[window], self.scale, self.origin - (x0, y0)), window
