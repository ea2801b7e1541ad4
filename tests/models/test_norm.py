"""Batch normalisation: the same numbers on any number of devices, whatever is masked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from aver_jax.models.norm import BatchNorm, feature_norm
from aver_jax.runtime.data_parallel import AXIS, make_mesh

MASKS = {
    "whole": np.ones(8, bool),
    "uneven": np.array([1, 1, 1, 0, 0, 1, 1, 1], bool),
    "one device without rows": np.array([1, 1, 0, 0, 1, 0, 0, 1], bool),
}


@pytest.fixture(scope="module")
def rows():
    """Activations [8, 3, 2, 5] far from 0, where differences of squares would lose everything."""
    rng = np.random.default_rng(0)
    return (50 + rng.normal(size=(8, 3, 2, 5)) * rng.uniform(0.5, 2, 5)).astype(np.float32)


def start(norm, x):
    variables = norm.init(jax.random.key(0), x, train=False)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.float32(rng.uniform(0.5, 2, leaf.shape)), variables)


def step(norm, variables, x, mask, target):
    """What a train step does on one device: local mean loss, gradients, averages over devices."""

    def loss(params, x):
        y, updated = norm.apply(
            {**variables, "params": params}, x, train=True, mask=mask, mutable="batch_stats"
        )
        # Masked rows have a say in the loss: their outputs may be used.
        return (y * target).mean(), (y, updated["batch_stats"])

    grads, (y, stats) = jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)
    if norm.axis_name:
        grads = (jax.lax.pmean(grads[0], AXIS), grads[1] / jax.lax.psum(1, AXIS))
    return y, grads, stats


@pytest.mark.parametrize("mapping", ["shard_map", "pmap"])
@pytest.mark.parametrize("mask", MASKS)
def test_four_devices_compute_what_one_does(rows, mapping, mask):
    mask = MASKS[mask]
    target = np.random.default_rng(2).normal(size=rows.shape).astype(np.float32)
    norm = BatchNorm()
    variables = start(norm, rows)
    y, grads, stats = jax.jit(functools.partial(step, norm))(variables, rows, mask, target)

    shared = functools.partial(step, norm.clone(axis_name=AXIS))
    if mapping == "shard_map":
        mapped = jax.jit(
            jax.shard_map(
                shared,
                mesh=make_mesh(4),
                in_specs=(P(), P(AXIS), P(AXIS), P(AXIS)),
                out_specs=(P(AXIS), (P(), P(AXIS)), P()),
                check_vma=False,
            )
        )
        y4, grads4, stats4 = mapped(variables, rows, mask, target)
    else:
        mapped = jax.pmap(shared, AXIS, in_axes=(None, 0, 0, 0), out_axes=(0, (None, 0), None))
        split = [np.reshape(a, (4, 2, *a.shape[1:])) for a in (rows, mask, target)]
        y4, grads4, stats4 = mapped(variables, *split)
        y4, x_grad = (np.reshape(a, rows.shape) for a in (y4, grads4[1]))
        grads4 = (grads4[0], x_grad)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5)
    jax.tree.map(close, (y4, stats4, grads4), (y, stats, grads))


def test_masked_rows_change_nothing_whatever_they_hold(rows):
    mask = MASKS["uneven"]
    norm = BatchNorm()
    variables = start(norm, rows)
    spoilt = np.where(mask[:, None, None, None], rows, np.nan)
    apply = functools.partial(norm.apply, variables, train=True, mutable="batch_stats")
    y, updated = apply(spoilt, mask=mask)
    alone, updated_alone = apply(rows[mask], mask=None)
    np.testing.assert_allclose(np.asarray(y)[mask], alone, rtol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), updated, updated_alone)


def test_of_fewer_than_two_values_the_running_statistics_serve_and_stay(rows):
    norm = BatchNorm()
    x = rows[:, 0, 0]
    variables = start(norm, x)
    expected = norm.apply(variables, x, train=False)
    for count in (0, 1):
        mask = np.arange(8) < count
        y, updated = norm.apply(variables, x, train=True, mask=mask, mutable="batch_stats")
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        jax.tree.map(
            np.testing.assert_array_equal, updated, {"batch_stats": variables["batch_stats"]}
        )


def test_gradients_of_a_batch_without_valid_rows_are_finite(rows):
    norm = BatchNorm()
    variables = start(norm, rows)
    _, grads, _ = step(norm, variables, rows, np.zeros(8, bool), np.ones_like(rows))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_evaluation_reads_the_running_statistics(rows):
    norm = feature_norm(None, jnp.float32, "norm")
    stats = start(norm, rows)["batch_stats"]
    y = norm.apply({"batch_stats": stats}, rows, train=False)
    mean, var = (np.asarray(stats[name]) for name in ("mean", "var"))
    np.testing.assert_allclose(y, (rows - mean) / np.sqrt(var + 1e-5), rtol=1e-5)


def test_feature_norm_has_no_parameters(rows):
    variables = feature_norm(None, jnp.float32, "norm").init(jax.random.key(0), rows, train=False)
    assert list(variables) == ["batch_stats"]


def test_initialising_in_training_mode_moves_no_statistics(rows):
    stats = BatchNorm().init(jax.random.key(0), rows, train=True)["batch_stats"]
    assert not stats["mean"].any()
    assert (stats["var"] == 1).all()


def test_low_precision_keeps_statistics_in_float32(rows):
    norm = BatchNorm(dtype=jnp.bfloat16)
    variables = start(norm, rows)
    y, updated = norm.apply(variables, rows, train=True, mutable="batch_stats")
    exact, updated_exact = BatchNorm().apply(variables, rows, train=True, mutable="batch_stats")
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=1e-2, atol=1e-2)
    jax.tree.map(np.testing.assert_array_equal, updated, updated_exact)


def test_a_mask_of_another_shape_is_refused(rows):
    with pytest.raises(ValueError, match="expected bool"):
        BatchNorm().init_with_output(jax.random.key(0), rows, train=True, mask=np.ones(7, bool))
