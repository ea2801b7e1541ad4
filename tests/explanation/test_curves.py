"""Curves against areas worked by hand, and a linear model whose exact ranking is known."""

import numpy as np
import pytest

from aver_jax.explanation.metrics import curves
from aver_jax.explanation.ranking import tubelet_masks


def test_area_is_the_integral_of_the_line_through_uneven_points():
    assert curves.area(np.array([1.0, 0.5, 0.0]), (0, 0.5, 1.0)) == pytest.approx(0.5)
    # 0.1 * (1 + 0.2) / 2 + 0.9 * (0.2 + 0) / 2
    assert curves.area(np.array([1.0, 0.2, 0.0]), (0, 0.1, 1.0)) == pytest.approx(0.15)
    assert curves.area(np.ones(len(curves.SHARES))) == pytest.approx(1)


def test_comprehensiveness_and_sufficiency_are_mean_drops_at_their_shares_alone():
    deleted = np.full((1, len(curves.SHARES)), 0.77)  # what is at other shares must not count
    kept = deleted.copy()
    for share, without, alone in zip(
        curves.AOPC, (0.8, 0.7, 0.6, 0.5, 0.4), (0.1, 0.3, 0.5, 0.7, 0.9), strict=True
    ):
        deleted[0, curves.SHARES.index(share)] = without
        kept[0, curves.SHARES.index(share)] = alone
    deleted[0, 0] = 0.9
    assert curves.comprehensiveness(deleted)[0] == pytest.approx(0.9 - 0.6)
    assert curves.sufficiency(deleted, kept)[0] == pytest.approx(0.9 - 0.5)


def test_class_probability_is_the_softmax_of_each_clips_own_class():
    logits = np.log(np.array([[[1.0, 3.0]], [[1.0, 4.0]]]))
    np.testing.assert_allclose(curves.class_probability(logits, np.array([1, 0])), [[0.75], [0.2]])
    # Large logits do not overflow.
    assert curves.class_probability(np.array([[[1000.0, 0.0]]]), np.array([0]))[0, 0] == 1


def test_the_exact_ranking_of_a_linear_model_beats_random_and_its_reverse_on_every_measure():
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=(6, 4, 5, 5))

    def measures(maps):
        removed = tubelet_masks(maps, curves.SHARES, "most")

        def probability(gone):
            left = (weights[:, None] * ~gone).sum((2, 3, 4)) / weights.sum((1, 2, 3))[:, None]
            return 1 / (1 + np.exp(-6 * (left - 0.5)))

        deleted, kept = probability(removed), probability(~removed)
        return np.array(
            [
                -curves.area(deleted),
                curves.area(kept),
                curves.comprehensiveness(deleted),
                -curves.sufficiency(deleted, kept),
            ]
        )

    exact, random, worst = (measures(m) for m in (weights, rng.random(weights.shape), -weights))
    assert (exact > random).all()
    assert (random > worst).all()
