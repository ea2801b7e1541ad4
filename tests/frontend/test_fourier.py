"""Both ways to a spectrum's power agree with numpy's transform in double precision."""

import jax
import numpy as np
import pytest

from aver_jax.frontend import fourier

WAYS = {"products": fourier._by_products, "transform": fourier._by_transform}


@pytest.mark.parametrize("length", [512, 400, 30, 14])
@pytest.mark.parametrize("way", WAYS)
def test_power_is_that_of_the_discrete_transform(way, length):
    # 14 = 2 * 7 and 30 = 5 * 6 have rows and columns of different numbers; 512 is the thesis'.
    frames = np.random.default_rng(0).normal(size=(2, 3, length)).astype(np.float32)
    expected = np.abs(np.fft.rfft(frames.astype(np.float64)))
    found = np.sqrt(np.asarray(jax.jit(WAYS[way])(frames)))
    assert found.shape == (2, 3, length // 2 + 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7 * expected.max())


def test_no_transform_runs_on_a_cpu():
    # XLA's own waits for threads of the pool it runs in, for ever if all of them do.
    frames = np.zeros((2, 512), np.float32)
    compiled = jax.jit(fourier.power).lower(frames).compile().as_text()
    assert "fft" not in compiled
    assert "fft" in jax.jit(fourier._by_transform).lower(frames).compile().as_text()
