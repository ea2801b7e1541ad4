"""Boxes of faces, (x0, y0, x1, y1) in pixels, and the picture inside one."""

import cv2
import numpy as np


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the intersection over union of two boxes [4], in [0, 1]."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    intersection = float(np.prod(np.maximum(sides, 0)))
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return intersection / (areas - intersection) if areas > intersection else 0.0


def squares(boxes: np.ndarray) -> np.ndarray:
    """Returns float64 [n, 3] of boxes [n, 4]: centre x, centre y and the longer side."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.concatenate([centres, sides], axis=1).astype(np.float64)


def crop_square(shape: tuple[int, ...], box: np.ndarray, margin: float) -> tuple[int, int, int]:
    """Returns left, top and side, in whole pixels, of what `crop` takes; it may leave the frame.

    Args:
      shape: of the frame, (H, W, ...).
      box, margin: as in `crop`.
    """
    x, y, side = squares(np.asarray(box)[None])[0]
    side = max(1, round(side * margin))
    # A box whose centre left the frame would have no pixel to repeat.
    left = round(float(np.clip(x, 0, shape[1] - 1)) - side / 2)
    top = round(float(np.clip(y, 0, shape[0] - 1)) - side / 2)
    return left, top, side


def crop(frame: np.ndarray, box: np.ndarray, margin: float, size: int) -> np.ndarray:
    """Returns the square around a box, resized; beyond the frame its edge is repeated.

    Args:
      frame: uint8 [H, W, 3].
      box: float [4] (x0, y0, x1, y1) in pixels of the frame.
      margin: side of the crop over the longer side of the box.
      size: side of the result in pixels.

    Returns:
      uint8 [size, size, 3]; shrunk by area averages, enlarged linearly.
    """
    height, width = frame.shape[:2]
    left, top, side = crop_square(frame.shape, box, margin)
    inside = frame[max(top, 0) : top + side, max(left, 0) : left + side]
    padding = (
        max(-top, 0),
        max(top + side - height, 0),
        max(-left, 0),
        max(left + side - width, 0),
    )
    if any(padding):
        inside = cv2.copyMakeBorder(inside, *padding, cv2.BORDER_REPLICATE)
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(inside, (size, size), interpolation=method)
