"""Checkpoints of three families become the same parameters, or an error that names the keys."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from aver_jax.models import init_variables
from aver_jax.models.timesformer.timesformer import ATTENTION_TYPES, TimeSformer
from aver_jax.models.weights.timesformer import (
    convert,
)
from aver_jax.models.weights.torch_tensors import CheckpointError

REFERENCE = Path(__file__).parents[2] / "reference"
WIDTH, HIDDEN, DEPTH, FRAMES, CLASSES = 16, 32, 2, 4, 5


def official(attention):
    """A random state with the official code's names: patches of 4 pixels, a grid of 3 x 3."""
    rng = np.random.default_rng(0)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 10, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 4, 4),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "head.weight": (CLASSES, WIDTH),
        "head.bias": (CLASSES,),
    }
    if attention != "space_only":
        shapes["time_embed"] = (1, FRAMES, WIDTH)
    dense = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    dense |= {"mlp.fc1": (HIDDEN, WIDTH), "mlp.fc2": (WIDTH, HIDDEN)}
    norms = ["norm1", "norm2"]
    if attention == "divided_space_time":
        dense |= {f"temporal_{name}": dense[name] for name in ("attn.qkv", "attn.proj")}
        dense["temporal_fc"] = (WIDTH, WIDTH)
        norms.append("temporal_norm1")
    for layer in range(DEPTH):
        for name, shape in dense.items():
            shapes[f"blocks.{layer}.{name}.weight"] = shape
            shapes[f"blocks.{layer}.{name}.bias"] = shape[:1]
        for name in norms:
            shapes[f"blocks.{layer}.{name}.weight"] = (WIDTH,)
            shapes[f"blocks.{layer}.{name}.bias"] = (WIDTH,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_params_are_those_the_model_declares(attention):
    converted = convert(official(attention), num_heads=2, attention=attention)
    model = TimeSformer(**converted.fields)
    expected = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))["params"]
    found = jax.tree.map(lambda x: (x.shape, x.dtype), converted.params)
    assert found == jax.tree.map(lambda x: (x.shape, x.dtype), expected)
    assert (model.attention, model.num_frames, model.image_size) == (attention, FRAMES, 12) or (
        attention == "space_only" and model.num_frames == 8
    )


def test_dense_layers_are_transposed_and_stacked():
    state = official("divided_space_time")
    blocks = convert(state, num_heads=2).params["blocks"]
    for ours, theirs in [
        (blocks["temporal_attn"]["qkv"], "temporal_attn.qkv"),
        (blocks["attn"]["proj"], "attn.proj"),
        (blocks["mlp"]["fc2"], "mlp.fc2"),
        (blocks["temporal_fc"], "temporal_fc"),
    ]:
        np.testing.assert_array_equal(ours["kernel"][1], state[f"blocks.1.{theirs}.weight"].T)
        np.testing.assert_array_equal(ours["bias"][1], state[f"blocks.1.{theirs}.bias"])
    np.testing.assert_array_equal(
        blocks["temporal_norm1"]["scale"][1], state["blocks.1.temporal_norm1.weight"]
    )


@pytest.mark.parametrize("root", ["model", "module", "model_state"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
def test_official_root_keys_and_prefixes_do_not_matter(root, prefix):
    state = official("divided_space_time")
    wrapped = {root: {prefix + name: value for name, value in state.items()}, "epoch": 3}
    converted = convert(wrapped, num_heads=2)
    assert (converted.family, converted.notes) == ("official", ())
    assert_same(converted.params, convert(state, num_heads=2).params)


@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_hugging_face_names_hold_the_official_parameters(attention):
    with np.load(REFERENCE / f"timesformer_{attention}.npz") as file:
        state = {
            name.removeprefix("weight/"): file[name] for name in file if name.startswith("weight/")
        }
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix("timesformer.")
        for theirs, ours in [
            (r"embeddings\.cls_token", "cls_token"),
            (r"embeddings\.position_embeddings", "pos_embed"),
            (r"embeddings\.time_embeddings", "time_embed"),
            (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
            (r"encoder\.layer", "blocks"),
            (r"attention\.attention\.qkv", "attn.qkv"),
            (r"attention\.output\.dense", "attn.proj"),
            (r"intermediate\.dense", "mlp.fc1"),
            (r"output\.dense", "mlp.fc2"),
            (r"temporal_dense", "temporal_fc"),
            (r"temporal_layernorm", "temporal_norm1"),
            (r"layernorm_before", "norm1"),
            (r"layernorm_after", "norm2"),
            (r"^layernorm", "norm"),
            (r"^classifier", "head"),
        ]:
            name = re.sub(theirs, ours, name)
        renamed[name] = value
    converted = convert(state, num_heads=3)
    assert converted.family == "hugging_face"
    assert_same(converted.params, convert(renamed, num_heads=3, attention=attention).params)
    # The backbone alone, as `TimesformerModel` saves it.
    bare = {k.removeprefix("timesformer."): v for k, v in state.items() if "classifier" not in k}
    assert_same(converted.params["blocks"], convert(bare, num_heads=3, new_head=2).params["blocks"])


def test_image_vit_gives_its_spatial_attention_to_the_temporal_one():
    image = official("space_only")
    converted = convert(image, num_heads=2, num_frames=6)
    blocks = converted.params["blocks"]
    assert converted.family == "image_vit"
    assert converted.fields["attention"] == "divided_space_time"
    assert_same(blocks["temporal_attn"], blocks["attn"])
    assert_same(blocks["temporal_norm1"], blocks["norm1"])
    assert not any(np.any(x) for x in jax.tree.leaves(blocks["temporal_fc"]))
    np.testing.assert_array_equal(converted.params["time_embed"], np.zeros((1, 6, WIDTH)))
    same = convert(image, num_heads=2, attention="space_only")
    assert_same(blocks["attn"], same.params["blocks"]["attn"])
    joint = convert(image, num_heads=2, attention="joint_space_time")
    assert joint.params["time_embed"].shape == (1, 8, WIDTH)
    assert "temporal_attn" not in joint.params["blocks"]


def test_other_sizes_and_a_new_head_are_taken_and_noted():
    converted = convert(
        official("divided_space_time"), num_heads=2, image_size=24, num_frames=2, new_head=3
    )
    model = TimeSformer(**converted.fields)
    assert (model.image_size, model.num_frames, model.num_classes) == (24, 2, 3)
    assert converted.params["pos_embed"].shape == (1, 37, WIDTH)
    assert converted.params["time_embed"].shape == (1, 2, WIDTH)
    assert converted.params["head"]["kernel"].shape == (WIDTH, 3)
    assert converted.notes == (
        "head newly drawn for 3 classes (the checkpoint had one of 5 classes)",
        "pos_embed resized from 3x3 to 6x6 patches (bicubic)",
        "time_embed resized from 4 to 2 (linear)",
    )


def without(*names):
    return lambda state: {k: v for k, v in state.items() if k not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("blocks.1.norm2.bias"), r"missing: blocks\.1\.norm2\.bias$"),
        (without("pos_embed"), r"missing keys: pos_embed"),
        (without("head.weight", "head.bias"), "without a head needs a new one"),
        (
            lambda s: s | {"blocks.0.ls1.gamma": s["norm.bias"]},
            r"unexpected: blocks\.0\.ls1\.gamma",
        ),
        (
            lambda s: s | {"norm.bias": np.zeros(3)},
            r"misshaped: norm\.bias \(3,\) instead of \(16,\)",
        ),
        (lambda s: s | {"norm.bias": s["norm.bias"] * np.nan}, r"not finite: norm\.bias"),
        (lambda s: s | {"time_embed": np.zeros(3)}, r"time_embed has shape \(3,\)"),
        (lambda s: s | {"pos_embed": np.zeros((1, 9, 16))}, "8 positions .* square"),
        (lambda s: {"optimizer": 1, "epoch": 2}, "not arrays: epoch, optimizer"),
        (lambda s: {}, "is empty"),
    ],
)
def test_strange_checkpoint_is_refused_by_the_names_of_its_keys(change, message):
    with pytest.raises(CheckpointError, match=message):
        convert(change(official("divided_space_time")), num_heads=2)


def test_keys_are_named_as_the_checkpoint_names_them():
    with np.load(REFERENCE / "timesformer_divided_space_time.npz") as file:
        state = {
            name.removeprefix("weight/"): file[name] for name in file if name.startswith("weight/")
        }
    prefix = "timesformer.encoder.layer.1"
    del state[f"{prefix}.attention.attention.qkv.bias"]
    state[f"{prefix}.adapter.weight"] = np.zeros(3)
    state[f"{prefix}.output.dense.bias"] = np.zeros(3)
    with pytest.raises(CheckpointError) as error:
        convert(state, num_heads=3)
    assert f"missing: {prefix}.attention.attention.qkv.bias;" in str(error.value)
    assert f"unexpected: {prefix}.adapter.weight;" in str(error.value)
    assert f"misshaped: {prefix}.output.dense.bias (3,) instead of (18,)" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "width of 16 does not divide into 0 heads"),
        ({"num_heads": 3}, "width of 16 does not divide into 3 heads"),
        ({"num_heads": 2, "attention": "space_only"}, "attention is divided_space_time, not"),
        ({"num_heads": 2, "image_size": 15}, "not a multiple of the patch size 4"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(CheckpointError, match=message):
        convert(official("divided_space_time"), **options)
