"""Gini index and max-sensitivity of maps whose values are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.explanation.clip_bootstrap import mean_intervals
from aver_jax.explanation.clip_maps import clip_batches, maps_of
from aver_jax.explanation.metrics import sensitivity
from aver_jax.explanation.metrics.sparseness import gini


def test_gini_of_an_even_map_is_zero_and_of_one_place_of_four_three_quarters():
    maps = np.array([[1.0, 1, 1, 1], [0, 5, 0, 0], [0, 0, 0, 0], [1, 3, 0, 0]])
    # Of 0 0 1 3: (1 * 1 + 3 * 3) / (4 * 4).
    np.testing.assert_allclose(gini(maps.reshape(4, 1, 2, 2)), [0, 0.75, 0, 0.625])


def test_a_map_that_is_the_clip_moves_by_at_most_the_noise_and_a_constant_one_not_at_all():
    frames = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (2, 2, 4, 4, 3)), jnp.float32)
    moved = sensitivity.largest_change(np.asarray, frames)
    # Uniform noise of half width r has a norm of r / sqrt(3) times the root of the count.
    wide = sensitivity.RADIUS * np.ptp(np.asarray(frames), (1, 2, 3, 4)) / np.sqrt(3)
    size = np.sqrt(np.square(np.asarray(frames)).mean((1, 2, 3, 4)))
    np.testing.assert_allclose(moved, wide / size, rtol=0.15)
    assert (sensitivity.largest_change(lambda x: np.ones((2, 3)), frames) == 0).all()


def test_a_map_that_appears_from_nothing_is_infinitely_sensitive():
    frames = jnp.zeros((1, 1, 2, 2, 3)).at[0, 0, 0, 0].set(1)
    assert sensitivity.largest_change(lambda x: np.asarray(x - frames), frames)[0] == np.inf


@pytest.mark.parametrize("method", ["tibav", "saliency"])
def test_sensitivity_of_a_run_is_finite_and_of_each_clip(small_run, dataset, test_rows, method):
    rows = test_rows[:5]
    batches = clip_batches(small_run, dataset, rows, 4)
    target = maps_of(small_run, dataset, rows, method, batch_size=4).target
    given = sensitivity.max_sensitivity(small_run, batches, method, target)
    assert given.shape == (5,)
    assert ((given > 0) & (given < 10)).all()


def test_intervals_hold_the_mean_and_shrink_to_it_where_clips_agree():
    values = np.stack([np.full(20, 0.3), np.arange(20.0)], axis=1)
    mean, low, high = mean_intervals(values)
    np.testing.assert_allclose([mean[0], low[0], high[0]], 0.3)
    assert low[1] < mean[1] == 9.5 < high[1]
    # 1.96 standard errors to either side.
    assert high[1] - low[1] == pytest.approx(2 * 1.96 * values[:, 1].std() / np.sqrt(20), rel=0.1)
    assert np.isnan(mean_intervals(values[:1])[1]).all()
