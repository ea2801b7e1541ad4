"""Embeddings of positions and times, trained at one size, for another.

As `torch.nn.functional.interpolate` does without `align_corners`: positions bicubically over the
grid of patches, as ViTs are resized (Touvron et al. 2021, "Training data-efficient image
transformers", section 6), times linearly. Of equal sizes they are the same arrays.
"""

import numpy as np


def resized_pos_embed(pos_embed: np.ndarray, grid: int) -> np.ndarray:
    """Returns position embeddings [1, 1+n*n, D] as float32 [1, 1+grid*grid, D], cls unchanged."""
    n, width = round((pos_embed.shape[1] - 1) ** 0.5), pos_embed.shape[2]
    if n == grid:
        return pos_embed
    weights = _cubic(n, grid)
    patches = np.asarray(pos_embed[0, 1:], np.float64).reshape(n, n, width)
    patches = np.einsum("iy,jx,yxd->ijd", weights, weights, patches, optimize=True)
    patches = patches.reshape(1, grid * grid, width).astype(np.float32)
    return np.concatenate([np.asarray(pos_embed[:, :1], np.float32), patches], axis=1)


def resized_time_embed(time_embed: np.ndarray, num_frames: int) -> np.ndarray:
    """Returns time embeddings [1, T, D] as float32 [1, num_frames, D]."""
    frames = time_embed.shape[1]
    if frames == num_frames:
        return time_embed
    weights = _linear(frames, num_frames)
    return np.einsum("it,btd->bid", weights, np.asarray(time_embed, np.float64)).astype(np.float32)


def _places(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the input at or before each output's centre, and how far the centre is from it."""
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    before = np.floor(centres).astype(int)
    return before, centres - before


def _linear(size: int, new_size: int) -> np.ndarray:
    """Returns float64 [new_size, size]."""
    before, beyond = _places(size, new_size)
    return _weights(size, before, {0: 1 - beyond, 1: beyond})


def _cubic(size: int, new_size: int) -> np.ndarray:
    """Returns float64 [new_size, size], of Keys' kernel with a = -0.75, as in torch and OpenCV."""
    before, beyond = _places(size, new_size)
    a = -0.75

    def near(x: np.ndarray) -> np.ndarray:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: np.ndarray) -> np.ndarray:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    taps = {-1: far(beyond + 1), 0: near(beyond), 1: near(1 - beyond), 2: far(2 - beyond)}
    return _weights(size, before, taps)


def _weights(size: int, before: np.ndarray, taps: dict[int, np.ndarray]) -> np.ndarray:
    """Returns float64 [new_size, size]; beyond the ends the last input counts again."""
    weights = np.zeros((len(before), size))
    for offset, share in taps.items():
        np.add.at(weights, (np.arange(len(before)), np.clip(before + offset, 0, size - 1)), share)
    return weights
