"""Bands of facial parts: where they lie in a crop, and that combinations are unions."""

import numpy as np
import pytest

from aver_jax.explanation.face_bands import CASES, FACE_SHARES, band_masks, band_rows


def test_there_is_every_combination_once():
    assert len(CASES) == 8
    assert len({frozenset(case) for case in CASES}) == 8
    assert CASES[0] == ()


@pytest.mark.parametrize("margin", [1.0, 1.3, 2.0])
def test_parts_lie_below_each_other_without_overlap(margin):
    eyes, nose, mouth = (band_rows(part, 224, margin) for part in FACE_SHARES)
    assert 0 <= eyes[0] < eyes[1] == nose[0] < nose[1] == mouth[0] < mouth[1] <= 224


def test_band_of_a_wider_crop_is_the_same_part_of_the_face():
    # A crop of twice the box has the box in its middle half.
    for part, (top, bottom) in FACE_SHARES.items():
        first, end = band_rows(part, 400, 2.0)
        assert first == pytest.approx(100 + 200 * top, abs=1)
        assert end == pytest.approx(100 + 200 * bottom, abs=1)


def test_case_occludes_the_union_of_its_parts():
    masks = dict(zip(CASES, band_masks(48, 1.0), strict=True))
    assert not masks[()].any()
    for case, mask in masks.items():
        union = np.any([masks[part,] for part in case], axis=0) if case else np.zeros(48, bool)
        np.testing.assert_array_equal(mask, union)
