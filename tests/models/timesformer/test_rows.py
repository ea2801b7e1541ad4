import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.timesformer import rows

FRAMES = 3


@pytest.fixture
def arrays():
    """x, out and a weight for every result, [2*T, 5, 4]."""
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 2 * FRAMES, 5, 4)), jnp.float32)


def _plain(x, out, shared):
    of_frames = out[:, 0].reshape(-1, FRAMES, out.shape[-1])
    mean = jnp.repeat(of_frames.mean(1), FRAMES, axis=0)
    return jnp.concatenate([x[:, :1] + (mean[:, None] if shared else 0), (x + out)[:, 1:]], 1)


@pytest.mark.parametrize("shared", [True, False])
def test_patches_get_the_sum_and_copies_of_cls_the_mean_or_nothing(arrays, shared):
    x, out, weights = arrays

    def ours(x, out):
        of_cls = jax.lax.stop_gradient(out[:, 0]) if shared else None
        return rows.add_to_patches(x, out, of_cls, FRAMES)

    np.testing.assert_allclose(ours(x, out), _plain(x, out, shared), atol=1e-6)
    ours_of = jax.grad(lambda x, out: (weights * ours(x, out)).sum(), (0, 1))(x, out)
    plain_of = jax.grad(lambda x, out: (weights * _plain(x, out, shared)).sum(), (0, 1))(x, out)
    for one, other in zip(ours_of, plain_of, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_is_written_in_place_is_what_is_selected(arrays):
    x, out, other = arrays
    np.testing.assert_array_equal(
        jax.jit(rows._written)(x, out, other[:, 0]), jax.jit(rows._selected)(x, out, other[:, 0])
    )


def test_rows_and_tokens_are_each_others_inverse():
    tokens = np.arange(2 * (1 + 4 * FRAMES) * 2, dtype=np.float32).reshape(2, -1, 2)
    laid = rows.frame_rows(tokens, FRAMES)
    assert laid.shape == (2 * FRAMES, 1 + 4, 2)
    # Patch p of frame t is token 1 + p*T + t.
    np.testing.assert_array_equal(laid[FRAMES + 1, 2], tokens[1, 1 + 1 * FRAMES + 1])
    np.testing.assert_array_equal(rows.clip_tokens(laid, FRAMES), tokens)
