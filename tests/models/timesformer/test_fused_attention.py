"""Attention by kernels: the values and gradients of the explicit form, filled rows left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models import init_variables
from aver_jax.models.attention import tpu
from aver_jax.models.attention.fused import (
    cudnn_attention,
    fused_row_attention,
    fused_time_attention,
)
from aver_jax.models.timesformer.timesformer import TimeSformer
from aver_jax.relevance.explain import explain

HEADS = 2


def plain(q, k, v, valid=None):
    """The formula, of q, k and v [..., S, h d]."""
    q, k, v = (x.reshape(*x.shape[:-1], HEADS, -1).swapaxes(-2, -3) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    if valid is not None:
        scores = jnp.where(valid, scores, -jnp.inf)
    out = (jax.nn.softmax(scores) @ v).swapaxes(-2, -3)
    return out.reshape(*out.shape[:-2], -1)


def assert_alike(ours, reference, shape, counted):
    """Compares values and gradients of two functions of q, k and v on what counts of the result."""
    rng = np.random.default_rng(0)
    q, k, v, weights = rng.standard_normal((4, *shape)).astype(np.float32)
    weights = weights * counted

    def both(function):
        def loss(*arrays):
            return (function(*arrays) * weights).sum()

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(q, k, v)

    for found, expected in zip(*map(jax.tree.leaves, (both(ours), both(reference))), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def counted_tokens(tokens, length):
    return (np.arange(tokens) < length)[None, :, None]


@pytest.mark.parametrize(("tokens", "length"), [(5, 5), (8, 8), (13, 13), (16, 13)])
def test_rows_filled_for_cudnn_change_neither_values_nor_gradients(tokens, length):
    def ours(*arrays):
        arrays = (x.reshape(3, tokens, HEADS, 4) for x in arrays)
        return cudnn_attention(*arrays, length, "xla").reshape(3, tokens, -1)

    valid = np.arange(tokens) < length
    assert_alike(
        ours,
        lambda *arrays: plain(*arrays, valid),
        (3, tokens, HEADS * 4),
        counted_tokens(tokens, length),
    )


@pytest.mark.parametrize("kernel", ["auto", "xla", "pallas"])
@pytest.mark.parametrize(("tokens", "length"), [(5, 5), (13, 13), (24, 20)])
def test_attention_along_rows_is_the_formula(kernel, tokens, length):
    assert_alike(
        lambda *arrays: fused_row_attention(*arrays, HEADS, length, kernel),
        lambda *arrays: plain(*arrays, np.arange(tokens) < length),
        (3, tokens, HEADS * 16),
        counted_tokens(tokens, length),
    )


@pytest.mark.parametrize("kernel", ["auto", "xla", "pallas"])
@pytest.mark.parametrize("tokens", [5, 16, 37])
def test_attention_over_time_is_the_formula(kernel, tokens):
    def reference(*arrays):
        return plain(*(x.swapaxes(1, 2) for x in arrays)).swapaxes(1, 2)

    assert_alike(
        lambda *arrays: fused_time_attention(*arrays, HEADS, kernel),
        reference,
        (2, 3, tokens, HEADS * 8),
        1.0,
    )


@pytest.mark.parametrize("heads", [1, 3, 12])
def test_heads_that_do_not_share_a_tile_are_right_too(heads):
    shape = (2, 9, heads * 16)

    def by_head(*arrays):
        q, k, v = (x.reshape(2, 9, heads, 16) for x in arrays)
        return jax.nn.dot_product_attention(q, k, v).reshape(shape)

    def ours(*arrays):
        return tpu.row_attention(*arrays, heads, 9, anywhere=True)

    assert_alike(ours, by_head, shape, 1.0)


def test_what_lies_past_the_end_of_an_array_does_not_reach_the_result():
    """A block of 16 positions reads past 21 of them; interpreted, it reads NaN there."""
    ones = jnp.ones((1, 2, 21, HEADS * 4))
    out = fused_time_attention(ones, ones, ones, HEADS, "pallas")
    np.testing.assert_allclose(out, 1, atol=1e-6)


def test_rows_too_long_for_the_kernel_are_attended_by_xla(monkeypatch):
    monkeypatch.setattr(tpu, "MOST_TOKENS", 8)
    monkeypatch.setattr(tpu, "row_attention", None)  # would fail if called
    x = jnp.ones((1, 9, HEADS * 4))
    np.testing.assert_allclose(fused_row_attention(x, x, x, HEADS, 9, "pallas"), 1, atol=1e-6)


@pytest.mark.parametrize("kernel", ["xla", "pallas"])
def test_every_kernel_gives_a_model_its_logits_gradients_and_maps(kernel):
    """Rows of 197 tokens are filled up to 200, but by "xla", and explained all the same."""
    fields = {"image_size": 112, "patch_size": 8, "num_frames": 2, "width": 16, "num_heads": 2}
    models = [TimeSformer(3, depth=2, kernel=name, **fields) for name in ("auto", kernel)]
    variables = init_variables(models[0], jax.random.key(0))
    # Away from the initial weights, of which those after attention over time are 0.
    variables = jax.tree.map(
        lambda x: x + 0.3 * np.random.default_rng(x.size).normal(size=x.shape), variables
    )
    frames = np.random.default_rng(0).normal(size=(2, 2, 112, 112, 3)).astype(np.float32)

    def results(model):
        def logits(variables):
            return model.apply(variables, {"frames": frames})[0]

        found, pullback = jax.vjp(logits, variables)
        maps = explain(model, variables, {"frames": frames}, "tibav").maps
        return found, pullback(jnp.ones_like(found)), maps

    def assert_close(found, expected):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(scale, 1))

    jax.tree.map(assert_close, *(jax.jit(results, static_argnums=0)(model) for model in models))
