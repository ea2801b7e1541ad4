"""Occlusion changes the masked tubelets, to what the baseline says, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.explanation.masking import BASELINES, occlude, substitute


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("baseline", BASELINES)
def test_only_masked_tubelets_change(frames, baseline):
    mask = np.zeros((2, 3, 4, 4), bool)
    mask[1, 2, 0, 3] = True
    given = np.asarray(jax.jit(occlude, static_argnums=2)(frames, mask, baseline))
    assert given.dtype == np.uint8
    changed = (given != frames).any(-1)
    inside = np.zeros(changed.shape, bool)
    inside[1, 2, 0:2, 6:8] = True
    assert not changed[~inside].any()
    assert changed[inside].any()


def test_black_and_mean_are_what_they_say():
    frames = jnp.stack([jnp.full((1, 2, 2, 3), v, jnp.float32) for v in (10.0, 30.0)], 1)
    everything = jnp.ones((1, 2, 1, 1), bool)
    assert (occlude(frames, everything, "black") == 0).all()
    assert (occlude(frames, everything, "mean") == 20).all()


def test_a_blur_keeps_one_colour_and_the_mean_brightness_and_removes_detail():
    one = np.full((1, 1, 16, 16, 3), 77, np.uint8)
    np.testing.assert_array_equal(substitute(jnp.asarray(one), "blur"), one)
    checks = np.indices((16, 16)).sum(0) % 2 * 200.0
    board = np.broadcast_to(checks[None, None, :, :, None], (1, 1, 16, 16, 3))
    blurred = np.asarray(substitute(jnp.asarray(board, jnp.float32), "blur"))
    # Of a deviation of 100 a hundredth is left, at the mirrored edges.
    assert blurred.std() < 2
    assert abs(blurred.mean() - 100) < 0.5


def test_what_does_not_fit_is_refused(frames):
    with pytest.raises(ValueError, match=r"divide 8 and 8"):
        occlude(frames, np.zeros((2, 3, 3, 3), bool), "black")
    with pytest.raises(ValueError, match="expected one of black, mean, blur"):
        substitute(frames, "white")
