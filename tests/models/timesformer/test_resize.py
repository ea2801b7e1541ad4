"""Embeddings brought to another number of frames or size of the picture."""

import cv2
import numpy as np
import pytest

from aver_jax.models.timesformer.resize import resized_pos_embed, resized_time_embed


def test_equal_sizes_are_the_same_arrays():
    rng = np.random.default_rng(0)
    positions, times = rng.normal(size=(1, 10, 4)), rng.normal(size=(1, 8, 4))
    assert resized_pos_embed(positions, 3) is positions
    assert resized_time_embed(times, 8) is times


@pytest.mark.parametrize(("old", "new"), [(14, 7), (14, 28), (14, 21), (3, 8), (8, 3)])
def test_positions_are_resized_as_opencv_enlarges_pictures(old, new):
    grid = np.random.default_rng(0).normal(size=(old, old, 3)).astype(np.float32)
    positions = np.concatenate([np.ones((1, 1, 3), np.float32), grid.reshape(1, -1, 3)], axis=1)
    found = resized_pos_embed(positions, new)
    expected = cv2.resize(grid, (new, new), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(found[0, 1:].reshape(new, new, 3), expected, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0], positions[:, 0])
    assert found.dtype == np.float32


def test_times_are_interpolated_between_the_centres_of_frames():
    times = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    found = resized_time_embed(times, 8)[0, :, 0]
    np.testing.assert_allclose(found, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    np.testing.assert_allclose(resized_time_embed(times, 2)[0, :, 0], [0.5, 2.5])
