"""Batch normalisation: the same numbers on any number of devices, whatever is masked."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from aver_jax.models.batch_norm import normalized_batch
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
    np.testing.assert_allclose(np.asarray(y)[mask], alone, rtol=1e-6, atol=1e-6)
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


@pytest.mark.parametrize("shape", [(16, 9, 7, 3), (16, 3)])
def test_one_read_keeps_the_digits_of_a_mean_far_from_0(shape):
    rng = np.random.default_rng(0)
    std = 2.0 ** np.arange(-2, 1)
    x = (1e4 * std + std * rng.normal(size=shape)).astype(np.float32)
    mask = rng.random(16) < 0.7
    axes = tuple(range(x.ndim - 1))
    exact = x[mask].astype(np.float64)
    norm = BatchNorm(use_scale=False, use_bias=False)
    variables = norm.init(jax.random.key(0), x, train=False)
    y, updated = norm.apply(variables, x, train=True, mask=mask, mutable="batch_stats")
    count = exact[..., 0].size
    unbiased = exact.var(axes) * count / (count - 1)
    moved = {"mean": 0.1 * exact.mean(axes), "var": 0.9 + 0.1 * unbiased}
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), updated["batch_stats"], moved
    )
    expected = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-5)
    np.testing.assert_allclose(np.asarray(y)[mask], expected, rtol=1e-5, atol=1e-5)


def plainly_normalized(x, scale, bias, added, mask, relu, pool):
    """Batch norm of float64 numbers as it is written, for automatic differentiation."""
    axes = tuple(range(x.ndim - 1))
    weights = mask.reshape(-1, *(1,) * (x.ndim - 1)) * jnp.ones_like(x)
    mean = (weights * x).sum(axes) / weights.sum(axes)
    var = (weights * jnp.square(x - mean)).sum(axes) / weights.sum(axes)
    y = (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias + (0 if added is None else added)
    y = jnp.maximum(y, 0) if relu else y
    return nn.max_pool(y, (3, 3), (2, 2), ((1, 1), (1, 1))) if pool else y


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(
    "what",
    ["norm", "added", "relu", "added and relu", "relu then pool", "relu and pool at once"],
)
def test_gradients_by_hand_are_those_of_the_plain_form(what, devices, monkeypatch):
    if "at once" in what:  # as on other devices than CPUs
        monkeypatch.setattr("aver_jax.models.norm._normalized_then_pooled", normalized_batch)
    rng = np.random.default_rng(1)
    mask, shape = MASKS["uneven"], (8, 5, 6, 3)
    x, added = (rng.normal(size=shape) for _ in range(2))
    relu, pool = "relu" in what, "pool" in what
    params = {"scale": np.array([0.5, -2.0, 1.0]), "bias": np.array([0.3, -0.1, 0.0])}
    arguments = {"params": params, "x": x} | ({"added": added} if "added" in what else {})
    weights = rng.normal(size=(8, 3, 3, 3) if pool else shape)

    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):

        def plain_total(a):
            parts = (a["params"]["scale"], a["params"]["bias"], a.get("added"))
            return (plainly_normalized(a["x"], *parts, mask, relu, pool) * weights).sum()

        expected = jax.grad(plain_total)(jax.tree.map(jnp.asarray, arguments))

    norm = BatchNorm(relu=relu, pool=pool, axis_name=AXIS)
    stats = {"mean": jnp.zeros(3), "var": jnp.ones(3)}

    def gradient(arguments, mask, weights):
        # With pool, what is normalised comes from a kernel times the sign of the scale.
        sign = jnp.where(arguments["params"]["scale"] < 0, -1.0, 1.0) if pool else jnp.ones(3)

        def total(a):
            y, _ = norm.apply(
                {"params": a["params"], "batch_stats": stats},
                a["x"] * sign.reshape(1, 1, 1, -1),
                train=True,
                mask=mask,
                added=a.get("added"),
                mutable="batch_stats",
            )
            return (y * weights).sum()

        found = jax.grad(total)(arguments)
        return found | {"params": jax.lax.psum(found["params"], AXIS)}

    split = {name: P() if name == "params" else P(AXIS) for name in arguments}
    mapped = jax.shard_map(
        gradient,
        mesh=make_mesh(devices),
        in_specs=(split, P(AXIS), P(AXIS)),
        out_specs=split,
        check_vma=False,
    )
    floats = jax.tree.map(np.float32, (arguments, weights))
    found = jax.jit(mapped)(floats[0], mask, floats[1])
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected
    )


def test_what_masked_rows_hold_is_in_no_gradient(rows):
    mask = MASKS["uneven"]
    norm = BatchNorm()
    variables = start(norm, rows)
    target = np.where(mask[:, None, None, None], 1.0, 0.0) * rows
    spoilt = np.where(mask[:, None, None, None], rows, np.inf)
    _, (of_params, of_x), _ = step(norm, variables, rows, mask, target)
    _, (found, found_x), _ = step(norm, variables, spoilt, mask, target)
    jax.tree.map(np.testing.assert_array_equal, found, of_params)
    np.testing.assert_array_equal(found_x, of_x)


def test_devices_exchange_once_forward_and_once_backward(rows):
    norm = BatchNorm(relu=True, axis_name=AXIS)
    variables = start(norm.clone(axis_name=None), rows)

    def gradient(x):
        def total(x):
            y, updated = norm.apply(
                variables, x, train=True, mask=x[:, 0, 0, 0] > 0, mutable="batch_stats"
            )
            return jnp.square(y).sum(), updated

        return jax.grad(total, has_aux=True)(x)

    mapped = jax.shard_map(
        gradient, mesh=make_mesh(4), in_specs=P(AXIS), out_specs=(P(AXIS), P()), check_vma=False
    )
    text = jax.jit(mapped).lower(rows).as_text()
    found = re.findall(r'stablehlo\.(all_\w+|reduce_scatter|collective_\w+)"', text)
    assert sorted(found) == ["all_gather", "all_reduce"]
