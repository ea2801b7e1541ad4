"""The data-parallel step: the same numbers on one device and on four, by shard_map and by pmap."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from aver_jax.config import base_config
from aver_jax.errors import UserError
from aver_jax.models.model import Model
from aver_jax.runtime.data_parallel import (
    MAPPINGS,
    check_batch_size,
    make_mesh,
    map_step,
    replicated,
)
from aver_jax.training.optimizer import learning_rate, make_optimizer, make_plateau_update, plateau
from aver_jax.training.state import create_state
from aver_jax.training.step import make_gradients, make_loss, make_update

BATCH = 8


class TinyNet(Model):
    """A network with batch statistics over the global batch and per-example randomness."""

    axis_name: str | None = None

    def with_axis(self, axis_name):
        return self.clone(axis_name=axis_name)

    @nn.compact
    def __call__(self, inputs, train=False, keys=None, capture=(), probes=None):
        x = inputs["frames"].mean(axis=(1, 2))  # [B, W, 3]
        x = x.reshape(x.shape[0], -1)
        x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name)(x)
        if train:
            noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
            x = x + 0.1 * noise
        x = nn.relu(nn.Dense(8, name="hidden")(x))
        return nn.Dense(3, name="head")(x), {}


def config_of(**settings) -> ConfigDict:
    config = base_config()
    config.frontend.augment = ConfigDict({"flip": 0.5, "translate": 0.1})
    config.optimizer.update({"name": "sgd", "lr": 0.1, "weight_decay": 0.01})
    config.schedule.name = "constant"
    config.schedule.warmup_epochs = 0.0
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in settings.items()})
    return config


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [
        {
            "frames": rng.integers(0, 256, (BATCH, 2, 8, 8, 3), dtype=np.uint8),
            "label": rng.integers(0, 3, BATCH).astype(np.int32),
            "seed": np.arange(BATCH, dtype=np.uint32) + 100 * step,
        }
        for step in range(3)
    ]


def trained(config, batches, devices=4, model=None):
    model = model or TinyNet()
    variables = model.init(jax.random.key(0), {"frames": jnp.zeros((1, 2, 8, 8, 3))})
    before = jax.tree.map(np.array, variables)  # the step gives the originals away
    schedule = learning_rate(config, steps_per_epoch=10)
    rule = make_optimizer(config, schedule)
    state = create_state(variables, rule, plateau(config), config.ema_decay, config.seed)
    mesh = make_mesh(devices)
    state = jax.device_put(state, replicated(mesh))
    step = map_step(make_gradients(model, config), make_update(rule, config), mesh, config.parallel)
    for batch in batches:
        state, metrics = step(state, batch)
    return jax.device_get(state), jax.device_get(metrics), before


def assert_trees_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.fixture(scope="module")
def on_one_device(batches):
    return trained(config_of(), batches, devices=1)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_four_devices_compute_what_one_does(batches, on_one_device, mapping):
    # SGD, since Adam would hide a gradient that is n times too large; batch norm, since its
    # statistics must be those of the global batch.
    state, metrics, _ = trained(config_of(parallel=mapping), batches)
    expected_state, expected_metrics, _ = on_one_device
    assert_trees_close(state.variables, expected_state.variables, rtol=2e-5, atol=2e-6)
    assert_trees_close(metrics, expected_metrics, rtol=2e-5)


def test_the_first_update_is_the_gradient_of_the_mean_loss(batches):
    # By hand, without any map: the learning rate times the gradient over the whole batch.
    config = config_of(
        optimizer__momentum=0.0, optimizer__weight_decay=0.0, optimizer__clip_norm=0.0
    )
    config.frontend = ConfigDict({"normalization": "half", "augment": {}})

    class Linear(Model):
        @nn.compact
        def __call__(self, inputs, train=False, keys=None, capture=(), probes=None):
            return nn.Dense(3, name="head")(inputs["frames"].mean(axis=(1, 2, 3))), {}

    state, _, variables = trained(config, batches[:1], model=Linear())
    x = (batches[0]["frames"] / 255 - 0.5).mean(axis=(1, 2, 3)) / 0.5
    kernel = np.asarray(variables["params"]["head"]["kernel"], np.float64)
    logits = x @ kernel
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gradient = x.T @ (probabilities - np.eye(3)[batches[0]["label"]]) / BATCH
    expected = kernel - config.optimizer.lr * gradient
    np.testing.assert_allclose(state.variables["params"]["head"]["kernel"], expected, atol=1e-5)


def test_accumulation_computes_the_same_update(batches):
    class NoStatistics(Model):
        @nn.compact
        def __call__(self, inputs, train=False, keys=None, capture=(), probes=None):
            x = inputs["frames"].reshape(inputs["frames"].shape[0], -1)
            return nn.Dense(3, name="head")(x), {}

    whole, _, _ = trained(config_of(), batches, devices=2, model=NoStatistics())
    parts, _, _ = trained(
        config_of(optimizer__accumulate=2), batches, devices=2, model=NoStatistics()
    )
    assert_trees_close(parts.variables, whole.variables, rtol=1e-5, atol=1e-6)


def test_the_parts_of_a_batch_are_the_same_on_any_number_of_devices(batches):
    # Statistics are those of each part, so it matters which examples a part holds.
    config = config_of(optimizer__accumulate=2)
    one, one_metrics, _ = trained(config, batches, devices=1)
    four, four_metrics, _ = trained(config, batches, devices=4)
    assert_trees_close(four.variables, one.variables, rtol=2e-5, atol=2e-6)
    assert_trees_close(four_metrics, one_metrics, rtol=2e-5)


def test_the_seed_is_data_of_the_step(batches):
    model, config = TinyNet(), config_of()
    loss = jax.jit(make_loss(model, config))
    variables = model.init(jax.random.key(0), {"frames": jnp.zeros((1, 2, 8, 8, 3))})
    collections = {"batch_stats": variables["batch_stats"]}
    values = [
        float(loss(variables["params"], collections, batches[0], jnp.uint32(seed))[0])
        for seed in (0, 1, 0)
    ]
    assert values[0] == values[2] != values[1]
    assert loss._cache_size() == 1


def test_frozen_parameters_stay_and_statistics_are_those_of_training(batches):
    config = config_of(freeze=("hidden", "BatchNorm_0"), optimizer__weight_decay=0.5)
    state, _, before = trained(config, batches)
    after = state.variables
    assert_trees_close(after["params"]["hidden"], before["params"]["hidden"], rtol=0)
    assert_trees_close(after["params"]["BatchNorm_0"], before["params"]["BatchNorm_0"], rtol=0)
    # Training normalises by the batch whatever is frozen, so evaluation must find its statistics.
    free, _, _ = trained(config_of(), batches)
    assert_trees_close(after["batch_stats"], free.variables["batch_stats"], rtol=1e-6)
    assert np.abs(after["batch_stats"]["BatchNorm_0"]["mean"]).max() > 0
    assert np.abs(after["params"]["head"]["kernel"] - before["params"]["head"]["kernel"]).max() > 0


def test_moving_average_follows_the_variables(batches):
    state, _, before = trained(config_of(ema_decay=0.999), batches[:1])
    # At the first step a young average takes 90% of the new value; batch statistics go along.
    jax.tree.map(
        lambda mean, old, new: np.testing.assert_allclose(mean, 0.1 * old + 0.9 * new, rtol=1e-5),
        state.ema,
        before,
        state.variables,
    )
    assert set(state.ema) == {"params", "batch_stats"}
    assert_trees_close(state.evaluation_variables(), state.ema, rtol=0)


def test_plateau_scale_multiplies_the_update(batches):
    config = config_of(optimizer__momentum=0.0)
    config.schedule.update({"name": "plateau", "plateau_factor": 0.5, "plateau_patience": 2})
    advance = make_plateau_update(config)
    slowed = plateau(config).init({})
    scales = []
    for loss in (1.0, 0.9, 0.95, 0.95, 0.95):
        slowed = advance(slowed, jnp.float32(loss))
        scales.append(float(slowed.scale))
    assert scales == [1.0, 1.0, 1.0, 0.5, 0.5]

    params = {"head": {"kernel": jnp.ones((2, 2))}}
    rule = make_optimizer(config, optax.constant_schedule(0.1))
    state = create_state({"params": params}, rule, plateau(config), 0.0, seed=0)
    update = make_update(rule, config)
    full = update(state, (params, {}))
    half = update(state.__class__(**{**vars(state), "plateau": slowed}), (params, {}))
    change = np.asarray(full.variables["params"]["head"]["kernel"]) - 1
    np.testing.assert_allclose(
        half.variables["params"]["head"]["kernel"] - 1, change / 2, rtol=1e-6
    )


def test_a_batch_that_the_devices_do_not_divide_is_refused():
    mesh = make_mesh(4)
    with pytest.raises(
        UserError, match=r"batch_size 6 cannot be divided by 4 devices; take 4 or 8"
    ):
        check_batch_size(6, mesh)
    with pytest.raises(UserError, match="accumulation"):
        check_batch_size(8, mesh, accumulate=3)
    check_batch_size(8, mesh, accumulate=2)
