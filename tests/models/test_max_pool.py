"""Max-pooling: every platform's form has the same maxima and sends the same gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models import max_pool as module
from aver_jax.models.max_pool import max_pool


@pytest.fixture(params=[(2, 7, 8, 3), (2, 6, 5, 2), (1, 5, 6, 7, 2)])
def x(request):
    """Few different values, so that many windows have several maxima."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 3, request.param), jnp.float32)


def test_every_form_is_the_same(x):
    axes = range(1, x.ndim - 1)
    expected = module._reduced(x)
    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    of_x = jax.vjp(module._reduced, x)[1](cotangent)[0]
    for steps in ([axes], [(axis,) for axis in reversed(axes)]):
        values, places = module._compared(x, steps)
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_allclose(module._gathered(cotangent, places, x), of_x, atol=1e-6)
    np.testing.assert_array_equal(max_pool(x), expected)
    np.testing.assert_allclose(jax.vjp(max_pool, x)[1](cotangent)[0], of_x, atol=1e-6)


def test_low_precision_stays_and_nan_shows(x):
    assert max_pool(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert jnp.isnan(max_pool(x.at[0].set(jnp.nan))[0]).all()
