"""Building a model from a config."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax import models
from aver_jax.models import build_model, init_variables
from aver_jax.models.timesformer.timesformer import SIZES


def test_config_becomes_module_with_its_fields_and_dtype():
    config = ConfigDict({"name": "timesformer", "dtype": "bfloat16", **SIZES["S"]})
    model = build_model(config, num_classes=8)
    assert (model.num_classes, model.width, model.num_heads) == (8, 384, 6)
    assert model.dtype == jnp.bfloat16


def test_lists_stand_for_tuples_so_that_equal_models_are_one():
    # A module is an argument of compiled functions: it must have a hash.
    fields = {"name": "mrpn", "stage_sizes": [1, 1], "modalities": ["audio", "video"]}
    model = build_model(ConfigDict(fields), 6)
    assert model.stage_sizes == (1, 1)
    assert model == build_model({**fields, "stage_sizes": (1, 1)}, 6)
    assert hash(model) == hash(build_model(fields, 6))
    several = build_model(fields, {"emotion": 6, "sex": 2})
    assert hash(several) == hash(build_model(fields, {"emotion": 6, "sex": 2}))


class Linear(nn.Module):
    num_classes: int

    def input_shapes(self, batch_size):
        return {"frames": jax.ShapeDtypeStruct((batch_size, 3), jnp.float32)}

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(self.num_classes, name="head")(inputs["frames"])


def test_drawing_variables_is_compiled_once_for_equal_models():
    first = init_variables(Linear(4), jax.random.key(0))
    compiled = models._drawn._cache_size()
    again = init_variables(Linear(4), jax.random.key(0))
    other = init_variables(Linear(4), jax.random.key(1))
    assert models._drawn._cache_size() == compiled
    kernels = [v["params"]["head"]["kernel"] for v in (first, again, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 0


def test_models_know_their_axis_and_their_further_losses():
    timesformer = build_model({"name": "timesformer", **SIZES["demo"]}, 6)
    assert timesformer.with_axis("data") is timesformer
    assert timesformer.auxiliary_logits == ()
    model = build_model({"name": "mrpn"}, 6)
    assert model.with_axis("data").axis_name == "data"
    assert model.auxiliary_logits == ("logits_video", "logits_audio")


@pytest.mark.parametrize("name", ["mrpn", "resnet_lstm"])
def test_every_model_initialises_from_its_own_declared_shapes(name):
    model = build_model({"name": name}, 6)
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    assert set(shapes) == {"params", "batch_stats"}
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time", "space_only"])
def test_every_size_initialises_from_its_own_declared_shapes(size, attention):
    model = build_model({"name": "timesformer", "attention": attention, **SIZES[size]}, 6)
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    assert set(shapes) == {"params"}
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert {x.shape[0] for x in jax.tree.leaves(shapes["params"]["blocks"])} == {model.depth}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "timesfomer"}, r"'timesfomer', expected one of \['mrpn', 'resnet_lstm', 'timesf"),
        ({}, "model.name is None"),
        ({"name": "timesformer", "widht": 3}, r"no field \['widht'\]"),
        ({"name": "timesformer", "num_classes": 3}, "no field"),
        ({"name": "timesformer", "dtype": "float16"}, "float16"),
        ({"name": "timesformer", "attention": "joint"}, "attention is 'joint'"),
        ({"name": "timesformer", "remat": "all"}, "remat is 'all'"),
        ({"name": "timesformer", "image_size": 225}, "not a multiple of patch_size"),
        ({"name": "timesformer", "num_heads": 7}, "not a multiple of num_heads"),
        ({"name": "timesformer", "kernel": "flash"}, "kernel is 'flash'"),
        ({"name": "timesformer", "kernel": "cudnn"}, "computes in bfloat16, found dtype float32"),
        ({"name": "timesformer", "drop_path": 1.0}, "drop_path is 1.0"),
        ({"name": "mrpn", "network": "n3"}, "network is 'n3'"),
        ({"name": "mrpn", "axis_name": "data"}, r"no field \['axis_name'\]"),
        ({"name": "resnet_lstm", "modality": "touch"}, "modality is 'touch'"),
    ],
)
def test_config_that_describes_no_model_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_model(config, num_classes=6)
