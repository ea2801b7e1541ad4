"""Masks take what they say: the most or the least relevant tubelets, and whole frames."""

import numpy as np
import pytest

from aver_jax.explanation.ranking import frame_masks, ranks, tubelet_masks


def test_least_is_the_exact_reverse_of_most_also_among_equal_values():
    values = np.array([[0.0, 3.0, 0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(ranks(values, "most"), [[2, 0, 3, 1, 4]])
    np.testing.assert_array_equal(ranks(values, "least"), [[2, 4, 1, 3, 0]])


def test_shares_are_of_all_tubelets_of_the_clip():
    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2)
    most = tubelet_masks(maps, (0, 0.01, 0.25, 1.0), "most")
    np.testing.assert_array_equal(most.sum((2, 3, 4)), [[0, 1, 4, 16]])
    # The four highest are all in the last frame.
    assert most[0, 2, 3].all()
    least = tubelet_masks(maps, (0.25,), "least")
    assert least[0, 0, 0].all()


def test_frames_are_wholly_taken_by_their_sum():
    maps = np.zeros((1, 3, 2, 2), np.float32)
    maps[0, 1] = 0.6  # 2.4 in all
    maps[0, 2, 0, 0] = 1.0  # the highest tubelet, yet 1.0 in all
    masks = frame_masks(maps, (0, 1, 2), "most")
    np.testing.assert_array_equal(masks.all((3, 4))[0], [[0, 0, 0], [0, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(frame_masks(maps, (1,), "least")[0, 0].all((1, 2)), [1, 0, 0])


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="'most' or 'least'"):
        ranks(np.zeros((1, 2)), "best")
