"""Scores against a known region, worked out by hand."""

import numpy as np
import pytest

from aver_jax.explanation.metrics.localisation import localisation, patch_cover

INSIDE = np.array([[[True, False], [False, False]]])


def test_scores_of_a_map_worked_out_by_hand():
    found = localisation(np.array([[[3.0, 4.0], [1.0, 2.0]]]), INSIDE)
    assert found.pointing == 0  # the peak, 4, lies outside
    assert found.mass == pytest.approx(0.3)
    assert found.auc == pytest.approx(2 / 3)  # 3 is above 1 and 2, below 4
    assert found.area == 0.25
    found = localisation(np.array([[[5.0, 4.0], [1.0, 0.0]]]), INSIDE)
    assert (found.pointing[0], found.mass[0], found.auc[0]) == (1, 0.5, 1)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_constant_map_scores_as_random_ones_do(value):
    found = localisation(np.full((1, 2, 2), value), INSIDE)
    assert (found.pointing[0], found.mass[0], found.auc[0]) == (0.25, 0.25, 0.5)


def test_random_maps_score_the_share_of_the_area():
    maps = np.random.default_rng(0).random((4000, 2, 2))
    found = localisation(maps, np.broadcast_to(INSIDE, maps.shape))
    assert found.pointing.mean() == pytest.approx(0.25, abs=0.02)
    assert found.mass.mean() == pytest.approx(0.25, abs=0.01)
    assert found.auc.mean() == pytest.approx(0.5, abs=0.02)


def test_a_clip_without_a_region_has_no_score_and_spoils_no_other():
    maps = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = localisation(maps, np.array([[False, False], [True, False]]))
    assert np.isnan(found.pointing[0])
    assert np.isnan(found.auc[0])
    assert found.pointing[1] == found.auc[1] == 1


def test_frames_are_scored_as_patches_are():
    found = localisation(np.array([[1.0, 1.0, 3.0, 5.0]]), np.array([[False, False, True, True]]))
    assert (found.pointing[0], found.mass[0], found.auc[0]) == (1, 0.8, 1)


def test_a_region_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"maps are \[1, 4\] and the region \[1, 2, 2\]"):
        localisation(np.zeros((1, 4)), INSIDE)


def test_a_box_covers_shares_of_the_patches_and_may_leave_the_picture():
    cover = patch_cover(np.array([0.25, -1.0, 0.75, 0.25]), (2, 2))
    np.testing.assert_allclose(cover, [[0.25, 0.25], [0, 0]])
    np.testing.assert_allclose(
        patch_cover(np.array([0.0, 0.5, 0.5, 1.0]), (2, 2)), [[0, 0], [1, 0]]
    )
