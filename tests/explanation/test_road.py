"""Imputation solves the equations of noisy linear imputation, checked by a sparse direct solver."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from aver_jax.explanation.masking import pixels_of
from aver_jax.explanation.metrics.road import NOISE, imputed_by, solved

NEIGHBOURS = {
    (dy, dx): 1 / 6 if 0 in (dy, dx) else 1 / 12
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dy, dx) != (0, 0)
}


def solved_directly(picture, removed):
    """The equations pixel by pixel: the weighted mean of the neighbours that exist."""
    height, width = removed.shape
    index = -np.ones(removed.shape, int)
    index[removed] = np.arange(removed.sum())
    matrix = scipy.sparse.lil_matrix((removed.sum(), removed.sum()))
    given = np.zeros((removed.sum(), 3))
    for y, x in zip(*np.nonzero(removed), strict=True):
        row = index[y, x]
        for (dy, dx), weight in NEIGHBOURS.items():
            if not (0 <= y + dy < height and 0 <= x + dx < width):
                continue
            matrix[row, row] += weight
            if removed[y + dy, x + dx]:
                matrix[row, index[y + dy, x + dx]] -= weight
            else:
                given[row] += weight * picture[y + dy, x + dx]
    filled = picture.copy()
    filled[removed] = scipy.sparse.linalg.spsolve(matrix.tocsr(), given)
    return filled


def test_removed_pixels_are_the_solution_of_the_linear_system():
    rng = np.random.default_rng(0)
    frames = rng.uniform(0, 255, (2, 3, 16, 12, 3)).astype(np.float32)
    mask = rng.random((2, 3, 8, 6)) < 0.6
    removed = np.asarray(pixels_of(jnp.asarray(mask), frames.shape))
    given = np.asarray(jax.jit(solved)(frames, removed, jnp.float32(128)))
    for clip in range(2):
        for t in range(3):
            picture = frames[clip, t].astype(np.float64)
            wanted = solved_directly(picture, removed[clip, t, ..., 0])
            np.testing.assert_allclose(given[clip, t], wanted, atol=0.1)


def test_one_colour_is_filled_with_itself_and_a_whole_frame_with_the_clips_mean():
    frames = np.full((1, 2, 8, 8, 3), 100, np.uint8)
    frames[0, 1] = 200
    mask = np.zeros((1, 2, 4, 4), bool)
    mask[0, 0, 1:3, 1:3] = True
    mask[0, 1] = True
    given = np.asarray(jax.jit(lambda f, m: imputed_by(f)(m))(frames, mask)).astype(float)
    inside = given[0, 0, 2:6, 2:6]
    assert abs(inside - 100).max() < 5 * NOISE
    assert inside.std() > 0.5
    outside = np.ones((8, 8), bool)
    outside[2:6, 2:6] = False
    assert (given[0, 0][outside] == 100).all()
    assert abs(given[0, 1].mean() - 150) < 1
