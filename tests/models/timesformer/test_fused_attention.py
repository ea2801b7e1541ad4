"""Attention by a kernel of jax.nn: the same values and gradients, rows filled up to eights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.custom_gradients import attend
from aver_jax.models.attention.fused import cudnn_attention


def explicit(q, k, v, lengths):
    valid = None
    if lengths is not None:
        valid = jnp.arange(q.shape[1])[None, None, None] < lengths[:, None, None, None]
    out, _ = attend(*(x.swapaxes(1, 2) for x in (q, k, v)), valid, None)
    return out.swapaxes(1, 2)


@pytest.mark.parametrize("length", [5, 8, 13])
@pytest.mark.parametrize("lengths", [None, [5, 2, 4]])
def test_filled_rows_change_neither_values_nor_gradients(length, lengths):
    rng = np.random.default_rng(0)
    q, k, v, weights = rng.standard_normal((4, 3, length, 2, 4)).astype(np.float32)
    if lengths is not None:
        lengths = np.array(lengths, np.int32)
        # What tokens past a clip's end give is not read.
        weights *= (np.arange(length) < lengths[:, None])[:, :, None, None]

    def loss(function):
        return jax.value_and_grad(lambda *qkv: (function(*qkv) * weights).sum(), (0, 1, 2))

    fused = loss(lambda *qkv: cudnn_attention(*qkv, lengths, "xla"))(q, k, v)
    plain = loss(lambda *qkv: explicit(*qkv, lengths))(q, k, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), fused, plain)
