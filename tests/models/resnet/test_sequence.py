"""Aggregators: what each returns, and that padding never reaches it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.resnet.sequence import AGGREGATORS, Aggregator, sinusoids

BATCH, STEPS, WIDTH = 4, 6, 16
LENGTHS = np.array([6, 3, 1, 0], np.int32)


@pytest.fixture(scope="module")
def sequences():
    return np.random.default_rng(0).normal(size=(BATCH, STEPS, WIDTH)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def aggregated(model, variables, x, lengths=None):
    return model.apply(variables, x, lengths)


@functools.partial(jax.jit, static_argnums=0)
def aggregated_and_gradients(model, variables, x):
    apply = functools.partial(model.apply, lengths=LENGTHS)
    out, pullback = jax.vjp(apply, variables, x)
    return out, pullback(jnp.ones_like(out))


@pytest.fixture(scope="module", params=AGGREGATORS)
def aggregator(request, sequences, random_variables):
    model = Aggregator(request.param, WIDTH)
    return model, random_variables(model, sequences)


def test_padding_reaches_neither_result_nor_gradient(aggregator, sequences):
    padding = np.arange(STEPS)[None] >= LENGTHS[:, None]
    out, (grads, grad_x) = aggregated_and_gradients(*aggregator, sequences)
    other, (other_grads, _) = aggregated_and_gradients(
        *aggregator, np.where(padding[..., None], np.float32(1e3), sequences)
    )
    np.testing.assert_array_equal(out, other)
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)
    np.testing.assert_array_equal(np.asarray(grad_x)[padding], 0)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out[3], 0)
    # No lengths mean that every step counts.
    alone = aggregated(*aggregator, sequences[1:2, :3])
    np.testing.assert_allclose(alone, out[1:2], rtol=1e-5, atol=1e-6)


def test_order_matters_save_to_the_mean(aggregator, sequences):
    swapped = aggregated(*aggregator, sequences[1:2, [1, 0, 2]])
    change = np.abs(swapped - aggregated(*aggregator, sequences[1:2, :3])).max()
    assert (change > 1e-4) == (aggregator[0].kind != "mean")


def test_the_backward_lstm_begins_at_the_last_valid_step(sequences, random_variables):
    # Reversing the valid steps swaps what the two directions read.
    model = Aggregator("bilstm", WIDTH)
    params = random_variables(model, sequences)["params"]
    swapped = {"forward": params["backward"], "backward": params["forward"]}
    backwards = sequences.copy()
    for row, length in enumerate(LENGTHS):
        backwards[row, :length] = sequences[row, :length][::-1]
    out = aggregated(model, {"params": params}, sequences, LENGTHS)
    other = aggregated(model, {"params": swapped}, backwards, LENGTHS)
    np.testing.assert_allclose(np.roll(out, WIDTH // 2, axis=-1), other, atol=1e-6)


def test_lstm_parameters_start_as_torchs():
    # Uniform within 1/sqrt(hidden); the counts are those of torch's LSTM less one bias vector.
    init = jax.jit(Aggregator("lstm", 64).init)
    flat = np.concatenate(
        [np.ravel(x) for x in jax.tree.leaves(init(jax.random.key(0), jnp.zeros((1, 2, 32))))]
    )
    assert flat.size == 4 * 64 * (32 + 64 + 1)
    assert np.abs(flat).max() <= 1 / 8
    np.testing.assert_allclose(flat.std(), 1 / 8 / np.sqrt(3), rtol=0.02)


@pytest.mark.parametrize("kind", ["lstm", "bilstm", "transformer"])
def test_width_may_differ_from_that_of_the_input(kind):
    out, _ = jax.eval_shape(
        Aggregator(kind, 8).init_with_output,
        jax.random.key(0),
        jnp.zeros((BATCH, STEPS, WIDTH)),
    )
    assert out.shape == (BATCH, 8)


@pytest.mark.parametrize("kind", ["bilstm", "transformer"])
def test_bfloat16_stays_close_and_returns_float32(kind, sequences, random_variables):
    model, half = Aggregator(kind, WIDTH), Aggregator(kind, WIDTH, jnp.bfloat16)
    variables = random_variables(model, sequences)
    exact, rough = (aggregated(m, variables, sequences, LENGTHS) for m in (model, half))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=0.02 * np.abs(exact).max())


def test_positions_are_those_of_vaswani():
    table = sinusoids(5, 7)
    assert table.shape == (5, 7)
    np.testing.assert_allclose(table[3, 4], np.sin(3 / 10000 ** (4 / 7)), rtol=1e-6)
    np.testing.assert_allclose(table[3, 5], np.cos(3 / 10000 ** (4 / 7)), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "features", "message"),
    [
        ("gru", 8, "aggregator is 'gru', expected one of"),
        ("bilstm", 7, "features is 7, but the two directions"),
        ("transformer", 200, "features is 200, but .* take a multiple of 64"),
        ("lstm", 0, "at least 1"),
    ],
)
def test_aggregators_that_cannot_be_are_refused(kind, features, message):
    with pytest.raises(ValueError, match=message):
        Aggregator(kind, features)


def test_a_mean_of_another_width_is_refused(sequences):
    with pytest.raises(ValueError, match="set features=16"):
        Aggregator("mean", 8).init(jax.random.key(0), sequences)
