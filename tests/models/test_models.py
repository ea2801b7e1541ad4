"""Building a model from a config."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from aver_jax.models import build_model, init_variables
from aver_jax.models.timesformer import SIZES


def test_config_becomes_module_with_its_fields_and_dtype():
    config = ConfigDict({"name": "timesformer", "dtype": "bfloat16", **SIZES["S"]})
    model = build_model(config, num_classes=8)
    assert (model.num_classes, model.width, model.num_heads) == (8, 384, 6)
    assert model.dtype == jnp.bfloat16


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
        ({"name": "timesfomer"}, r"'timesfomer', expected one of \['timesformer'\]"),
        ({}, "model.name is None"),
        ({"name": "timesformer", "widht": 3}, r"no field \['widht'\]"),
        ({"name": "timesformer", "num_classes": 3}, "no field"),
        ({"name": "timesformer", "dtype": "float16"}, "float16"),
        ({"name": "timesformer", "attention": "joint"}, "attention is 'joint'"),
        ({"name": "timesformer", "remat": "all"}, "remat is 'all'"),
        ({"name": "timesformer", "image_size": 225}, "not a multiple of patch_size"),
        ({"name": "timesformer", "num_heads": 7}, "not a multiple of num_heads"),
        ({"name": "timesformer", "drop_path": 1.0}, "drop_path is 1.0"),
    ],
)
def test_config_that_describes_no_model_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_model(config, num_classes=6)
