"""Where the cells of a ResNet's maps lie in what it looks at.

Its convolutions and its max-pool are padded by half their size: at stride s, cell i of an axis is
centred on input i * s, its first cell on the very first input. The patches of a TimeSformer are not
such cells: patch i covers inputs i * s to (i + 1) * s.
"""

import numpy as np


def cell_centres(count: int, size: int) -> np.ndarray:
    """Returns the centres of `count` cells along an axis of `size` inputs, float64 [count].

    The stride is the power of two s with count = ceil(size / s). Where there is none, the cells are
    taken to share the axis evenly.
    """
    for power in range(size.bit_length() + 1):
        if -(-size // 2**power) == count:
            return np.arange(count) * float(2**power)
    return (np.arange(count) + 0.5) * (size / count) - 0.5


def cell_weights(count: int, size: int) -> np.ndarray:
    """Returns weights of linear interpolation between the centres of cells: float32 [size, count].

    Row k has the weights of the cells at input k; they sum to 1.
    """
    centres = cell_centres(count, size)
    rows = [np.interp(np.arange(size), centres, unit) for unit in np.eye(count)]
    return np.float32(np.stack(rows, axis=1))


def enlarged(maps, height: int, width: int) -> np.ndarray:
    """Enlarges maps float [..., h, w] of cells to what they look at, [..., height, width]."""
    maps = np.asarray(maps, np.float32)
    rows = cell_weights(maps.shape[-2], height)
    return rows @ maps @ cell_weights(maps.shape[-1], width).T
