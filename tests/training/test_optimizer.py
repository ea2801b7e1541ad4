"""Optimizer and schedule: what decays, what is frozen, what is clipped, the rate at each step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from aver_jax.config import base_config
from aver_jax.errors import UserError
from aver_jax.models import init_variables
from aver_jax.models.param_paths import frozen_mask, parameter_path
from aver_jax.models.timesformer.timesformer import TimeSformer
from aver_jax.training.optimizer import (
    OPTIMIZERS,
    SCHEDULES,
    check_freeze,
    decay_mask,
    learning_rate,
    make_optimizer,
)


@pytest.fixture(scope="module")
def shapes():
    """The shapes of a TimeSformer's parameters; the tree is that of every size."""
    model = TimeSformer(
        num_classes=6, image_size=16, num_frames=2, patch_size=8, width=8, depth=2, num_heads=2
    )
    return jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))["params"]


def marked(mask) -> set[str]:
    """The paths where a tree of bools is True."""
    flat, _ = jax.tree_util.tree_flatten_with_path(mask)
    return {parameter_path(path) for path, value in flat if value}


def every_path(tree) -> set[str]:
    return marked(jax.tree.map(lambda _: True, tree))


def config_of(freeze=(), schedule="constant", epochs=1.0, warmup=0.0, **optimizer) -> ConfigDict:
    config = base_config()
    config.freeze = freeze
    config.epochs = epochs
    config.schedule.update({"name": schedule, "warmup_epochs": warmup})
    config.optimizer.update({"lr": 0.1, "weight_decay": 0.0, "clip_norm": 0.0, **optimizer})
    return config


def moved(config, params, grads, steps=1):
    """How far each parameter is from its start after some updates at a constant rate."""
    schedule = optax.constant_schedule(config.optimizer.lr)
    rule = make_optimizer(config, schedule)
    now, state = params, rule.init(params)
    for _ in range(steps):
        updates, state = rule.update(grads, state, now)
        now = optax.apply_updates(now, updates)
    return jax.tree.map(lambda a, b: np.asarray(b - a), params, now)


@pytest.fixture
def params():
    return {
        "blocks": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0)},
        "head": {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.full(2, 2.0)},
        "pos_embed": jnp.full((1, 3), 2.0),
    }


def test_only_the_kernels_of_the_model_decay(shapes):
    kernels = {
        "patch_embed/kernel",
        "blocks/temporal_attn/qkv/kernel",
        "blocks/temporal_attn/proj/kernel",
        "blocks/temporal_fc/kernel",
        "blocks/attn/qkv/kernel",
        "blocks/attn/proj/kernel",
        "blocks/mlp/fc1/kernel",
        "blocks/mlp/fc2/kernel",
        "head/kernel",
    }
    assert marked(decay_mask(shapes)) == kernels
    others = every_path(shapes) - kernels
    assert {"cls_token", "pos_embed", "time_embed", "norm/scale", "head/bias"} <= others


def test_a_frozen_name_freezes_all_below_it_and_nothing_else(shapes):
    below = {path for path in every_path(shapes) if path.startswith("blocks/")}
    assert below
    assert marked(frozen_mask(shapes, ("blocks",))) == below


def test_a_frozen_pattern_reaches_into_the_tree(shapes):
    assert marked(frozen_mask(shapes, ("*/attn/*",))) == {
        "blocks/attn/qkv/kernel",
        "blocks/attn/qkv/bias",
        "blocks/attn/proj/kernel",
        "blocks/attn/proj/bias",
    }


def test_a_frozen_leaf_is_frozen_alone_and_patterns_add_up(shapes):
    assert marked(frozen_mask(shapes, ("head/bias",))) == {"head/bias"}
    both = frozen_mask(shapes, ("head/bias", "pos_embed"))
    assert marked(both) == {"head/bias", "pos_embed"}
    assert marked(frozen_mask(shapes, ())) == set()


def test_a_frozen_pattern_that_matches_nothing_is_named_with_what_there_is(shapes):
    trees = {"params": shapes, "batch_stats": {"BatchNorm_0": {"mean": jnp.zeros(2)}}}
    check_freeze(trees, ("blocks", "BatchNorm_0", "*/attn/*"))
    with pytest.raises(UserError, match=r"'block' matches no.*BatchNorm_0, blocks, cls_token"):
        check_freeze(trees, ("blocks", "block"))


def test_the_rate_warms_up_in_a_line_and_falls_to_zero_as_a_cosine():
    config = config_of(schedule="cosine", epochs=10.0, warmup=2.0, lr=0.8)
    rates = np.array([learning_rate(config, 4)(step) for step in range(41)])
    # 8 steps of warm-up from an eighth of the rate, then 32 of half a cosine.
    np.testing.assert_allclose(rates[:9], np.linspace(0.1, 0.8, 9), rtol=1e-6)
    cosine = 0.4 * (1 + np.cos(np.pi * np.arange(33) / 32))
    np.testing.assert_allclose(rates[8:], cosine, rtol=1e-6, atol=1e-7)
    assert rates[40] == 0.0


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_the_other_schedules_stay_at_the_rate_after_warm_up(name):
    schedule = learning_rate(config_of(schedule=name, epochs=3.0, warmup=1.0), 4)
    rates = [float(schedule(step)) for step in range(12)]
    np.testing.assert_allclose(rates[:4], np.linspace(0.025, 0.1, 5)[:4], rtol=1e-6)
    np.testing.assert_allclose(rates[4:], 0.1, rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_whole_rate(name):
    assert learning_rate(config_of(schedule=name), 4)(0) == pytest.approx(0.1)


def test_a_run_shorter_than_its_warm_up_never_passes_the_rate():
    schedule = learning_rate(config_of(schedule="cosine", warmup=5.0), 4)
    rates = [float(schedule(step)) for step in range(4)]
    np.testing.assert_allclose(rates, np.linspace(0.025, 0.1, 5)[:4], rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_acts_on_kernels_alone(name, params):
    config = config_of(name=name, weight_decay=0.5)
    change = moved(config, params, jax.tree.map(jnp.zeros_like, params))
    # With no gradient a kernel shrinks by rate x decay x itself: .1 x .5 x 2.
    np.testing.assert_allclose(change["head"]["kernel"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(change["blocks"]["kernel"], -0.1, rtol=1e-5)
    for rest in (change["head"]["bias"], change["blocks"]["bias"], change["pos_embed"]):
        np.testing.assert_array_equal(rest, 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_do_not_move_even_under_weight_decay(name, params):
    config = config_of(name=name, weight_decay=0.5, freeze=("blocks", "head/bias"))
    change = moved(config, params, jax.tree.map(jnp.ones_like, params), steps=2)
    for frozen in (*change["blocks"].values(), change["head"]["bias"]):
        np.testing.assert_array_equal(frozen, 0.0)
    assert (change["head"]["kernel"] < 0).all()
    assert (change["pos_embed"] < 0).all()


def test_the_gradient_is_clipped_by_its_norm_over_all_parameters(params):
    grads = jax.tree.map(jnp.zeros_like, params)
    grads["pos_embed"] = jnp.array([[3.0, 0.0, 0.0]])
    grads["head"]["bias"] = jnp.array([0.0, 4.0])  # together of norm 5
    config = config_of(name="sgd", momentum=0.0, clip_norm=1.0)
    change = moved(config, params, grads)
    np.testing.assert_allclose(change["pos_embed"], [[-0.06, 0, 0]], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(change["head"]["bias"], [0, -0.08], rtol=1e-5, atol=1e-7)
    config.optimizer.clip_norm = 0.0
    change = moved(config, params, grads)
    np.testing.assert_allclose(change["head"]["bias"], [0, -0.4], rtol=1e-5, atol=1e-7)


def test_frozen_gradients_do_not_count_in_the_clipped_norm(params):
    grads = jax.tree.map(jnp.zeros_like, params)
    grads["blocks"] = jax.tree.map(lambda p: jnp.full_like(p, 1e3), params["blocks"])
    grads["head"]["bias"] = jnp.array([0.0, 0.5])
    config = config_of(name="sgd", momentum=0.0, clip_norm=1.0, freeze=("blocks",))
    change = moved(config, params, grads)
    np.testing.assert_allclose(change["head"]["bias"], [0, -0.05], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("momentum", "distance"), [(0.0, 0.2), (0.9, 0.1 + 0.19)])
def test_sgd_carries_momentum_over_unless_it_is_zero(momentum, distance, params):
    config = config_of(name="sgd", momentum=momentum)
    change = moved(config, params, jax.tree.map(jnp.ones_like, params), steps=2)
    for leaf in jax.tree.leaves(change):
        np.testing.assert_allclose(leaf, -distance, rtol=1e-5)


def test_the_first_adamw_step_is_the_rate_whatever_the_gradient(params):
    grads = jax.tree.map(lambda p: jnp.full_like(p, -1e-3), params)
    for leaf in jax.tree.leaves(moved(config_of(name="adamw"), params, grads)):
        np.testing.assert_allclose(leaf, 0.1, rtol=1e-3)
