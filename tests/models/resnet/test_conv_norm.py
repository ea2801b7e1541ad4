"""A convolution and its norm: the forms that platforms run are the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.batch_norm import centred_affine, pixel_mean
from aver_jax.models.resnet.conv_norm import _folded, _pixel_mean_ahead, convolved

SHAPES = {
    "inside": ((4, 12, 11, 3), 3, 1),
    "wide": ((4, 12, 11, 3), 7, 2),
    "over the edges": ((4, 2, 1, 3), 3, 2),
    "in time": ((4, 3, 6, 5, 3), 3, 2),
}


@pytest.fixture(params=SHAPES)
def case(request):
    shape, size, stride = SHAPES[request.param]
    rng = np.random.default_rng(0)
    axes = len(shape) - 2
    x = jnp.asarray(2 + rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size,) * axes + (3, 5)), jnp.float32)
    return x, kernel, (stride,) * axes, ((size // 2, size // 2),) * axes


@pytest.mark.parametrize("mask", [None, [True, False, True, True]])
def test_the_mean_of_a_pixel_is_known_before_the_convolution(case, mask):
    mask = mask if mask is None else np.array(mask)
    x = case[0] if mask is None else case[0].at[1].set(jnp.nan)
    expected = pixel_mean(convolved(*case), mask)
    found = _pixel_mean_ahead(x, *case[1:], mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_norm_in_the_kernel_is_the_norm_after_it(case):
    rng = np.random.default_rng(1)
    mean, factor, bias = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(3))
    x, kernel, *how = case
    found = _folded(x, kernel, mean, factor, bias, *how)
    expected = centred_affine(convolved(x, kernel, *how), mean, factor, bias)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
