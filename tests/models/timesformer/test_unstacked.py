"""Layers taken out of their stack and put back: nothing is lost, and masks find them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aver_jax.config import base_config
from aver_jax.models import build_model, init_variables, unstacked_layers
from aver_jax.models.timesformer.unstacked import Layers, stacked, unstack, unstack_like
from aver_jax.training.optimizer import OPTIMIZERS, make_optimizer

DEPTH = 3


@pytest.fixture(scope="module")
def model():
    fields = {
        "name": "timesformer", "width": 8, "depth": DEPTH, "num_heads": 2, "patch_size": 4,
        "image_size": 8, "num_frames": 2, "unroll": DEPTH,
    }  # fmt: skip
    return build_model(fields, num_classes=3)


@pytest.fixture(scope="module")
def params(model):
    return init_variables(model, jax.random.key(0))["params"]


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_every_layer_gets_its_slice_and_the_stack_comes_back(model, params):
    unstacked = unstacked_layers(model, {"params": params})["params"]
    assert set(unstacked) == set(params)
    assert [type(unstacked[name]) is Layers for name in unstacked] == [
        name == "blocks" for name in unstacked
    ]
    assert len(unstacked["blocks"].layers) == DEPTH
    kernel = params["blocks"]["mlp"]["fc1"]["kernel"]
    assert_equal(unstacked["blocks"].layers[1]["mlp"]["fc1"]["kernel"], kernel[1])
    assert_equal(stacked(unstacked), params)
    assert_equal(unstack_like(params, unstacked), unstacked)


def test_a_loop_keeps_its_stack(model, params):
    for unroll in (1, DEPTH - 1):
        looped = unstacked_layers(model.clone(unroll=unroll), {"params": params})["params"]
        assert jax.tree.structure(looped) == jax.tree.structure(params)


def test_what_has_no_array_stays_empty():
    tree = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": optax.MaskedNode()}
    unstacked = unstack(tree, 2)
    assert [part["bias"] for part in unstacked.layers] == [optax.MaskedNode()] * 2
    back = stacked({"blocks": unstacked})["blocks"]
    assert back["bias"] == optax.MaskedNode()
    assert_equal(back["kernel"], tree["kernel"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_does_to_layers_what_it_does_to_their_stack(model, params, name):
    config = base_config()
    config.optimizer.name = name
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 0.5
    config.freeze = ("blocks/attn", "*/temporal_attn/qkv/bias", "cls_token")
    rule = make_optimizer(config, optax.constant_schedule(0.1))
    unstacked = unstacked_layers(model, {"params": params})["params"]
    keys = optax.tree.split_key_like(jax.random.key(1), params)
    grads = jax.tree.map(lambda key, p: jax.random.normal(key, p.shape), keys, params)

    @jax.jit
    def two_steps(params, grads):
        state = rule.init(params)
        for _ in range(2):
            updates, state = rule.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    expected = two_steps(params, grads)
    found = two_steps(unstacked, unstack_like(grads, unstacked))
    close = {"rtol": 1e-5, "atol": 1e-7}  # norms are sums in another order
    for one, other in zip(stacked(found), expected, strict=True):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), one, other)
    frozen = found[0]["blocks"].layers[2]["attn"]["qkv"]["kernel"]
    assert_equal(frozen, params["blocks"]["attn"]["qkv"]["kernel"][2])
    trained = found[0]["blocks"].layers[2]["temporal_attn"]["qkv"]["kernel"]
    assert np.abs(trained - params["blocks"]["temporal_attn"]["qkv"]["kernel"][2]).max() > 1e-3
