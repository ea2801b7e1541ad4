"""The convolutional stem: shapes, the grid of patches that stays, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.timesformer.stem import ConvStem
from aver_jax.models.timesformer.timesformer import ATTENTION_TYPES, TimeSformer

FIELDS = {
    "num_classes": 5,
    "image_size": 16,
    "num_frames": 3,
    "patch_size": 8,
    "width": 24,
    "depth": 2,
    "num_heads": 3,
}


def shapes_of(variables):
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_convolution_halves_the_frame_and_the_last_has_the_models_width(depth):
    stem = ConvStem(depth, 24, jnp.bfloat16)
    frames = np.zeros((2, 3, 16, 16, 3), np.float32)
    out, variables = jax.eval_shape(lambda: stem.init_with_output(jax.random.key(0), frames))
    side = 16 // 2**depth
    assert (out.shape, out.dtype) == ((2, 3, side, side, 24), jnp.bfloat16)
    channels = [3, *(24 >> (depth - 1 - i) for i in range(depth))]
    expected = {}
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        expected[f"conv{i + 1}/kernel"] = (3, 3, before, after)
        expected[f"conv{i + 1}/bias"] = (after,)
    assert shapes_of(variables) == expected
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_the_stem_looks_at_each_frame_alone(random_variables, clips):
    stem = ConvStem(2, 24, jnp.float32)
    variables = random_variables(stem, clips)
    before = stem.apply(variables, clips)
    changed = clips.copy()
    changed[1, 2] += 1
    moved = np.abs(stem.apply(variables, changed) - before).max(axis=(2, 3, 4))
    assert np.argwhere(moved > 0).tolist() == [[1, 2]]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_cell_sees_the_surroundings_of_its_own_centre(depth):
    stem = ConvStem(depth, 4, jnp.float32)
    frames = np.full((1, 1, 64, 64, 3), 10, np.float32)
    variables = jax.eval_shape(lambda: stem.init(jax.random.key(0), frames))
    # Positive weights, so that GELU is the identity and every pixel counts.
    variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.1 * (x.ndim > 1)), variables)
    cell, stride = 32 >> depth, 2**depth
    seen = jax.grad(lambda x: stem.apply(variables, x)[0, 0, cell, cell, 0])(frames)[0, 0, ..., 0]
    for axis in (0, 1):
        centre = (seen.sum(1 - axis) * np.arange(64)).sum() / seen.sum()
        assert abs(centre - (stride * (cell + 0.5) - 0.5)) <= 0.5 + 1e-4


@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_a_stem_leaves_the_grid_of_patches_and_all_taps_as_they_are(
    attention, random_variables, clips
):
    plain = TimeSformer(**FIELDS, attention=attention)
    model = plain.clone(stem=2)
    variables = random_variables(model)
    shapes = shapes_of(variables)
    others = shapes_of(random_variables(plain))
    assert {name: shape for name, shape in shapes.items() if others.get(name) != shape} == {
        "patch_embed/kernel": (2, 2, 24, 24),
        "stem/conv1/kernel": (3, 3, 3, 12),
        "stem/conv1/bias": (12,),
        "stem/conv2/kernel": (3, 3, 12, 24),
        "stem/conv2/bias": (24,),
    }
    assert model.tap_shapes(2) == plain.tap_shapes(2)
    logits, taps = jax.jit(
        lambda x: model.apply(variables, {"frames": x}, capture=tuple(model.tap_shapes(2)))
    )(clips)
    assert logits.shape == (2, 5)
    assert {name: tap.shape for name, tap in taps.items()} == plain.tap_shapes(2)


def test_a_patch_sees_its_own_place_through_the_stem(random_variables, clips):
    model = TimeSformer(**FIELDS | {"depth": 1, "image_size": 32}, stem=2)
    variables = random_variables(model)
    blocks = variables["params"]["blocks"]
    # Nothing is added to the embeddings by such a layer.
    for branch in (blocks["temporal_fc"], blocks["attn"]["proj"], blocks["mlp"]["fc2"]):
        branch |= {name: np.zeros_like(value) for name, value in branch.items()}
    run = jax.jit(lambda x: model.apply(variables, {"frames": x}, capture=("block",))[1]["block"])
    frames = np.zeros((1, 3, 32, 32, 3), np.float32)
    changed = frames.copy()
    # Row 1, column 2 of 4 x 4 in frame 1; a pixel that no convolution of a neighbour reaches.
    changed[0, 1, 8 + 2, 16 + 2] += 1
    moved = np.abs(run(changed) - run(frames))[0, 0].max(axis=-1)
    assert np.flatnonzero(moved > 1e-6).tolist() == [1 + (1 * 4 + 2) * 3 + 1]


def test_no_stem_has_the_parameters_of_the_published_model(random_variables):
    shapes = shapes_of(random_variables(TimeSformer(**FIELDS, stem=0)))
    assert shapes == shapes_of(random_variables(TimeSformer(**FIELDS)))
    assert shapes["patch_embed/kernel"] == (8, 8, 3, 24)
    assert not [name for name in shapes if "stem" in name]


@pytest.mark.parametrize("stem", [-1, 4])
def test_a_stem_that_does_not_fit_the_patches_is_refused_in_one_line(stem):
    with pytest.raises(ValueError, match=rf"^stem is {stem}, expected .*patch_size 8") as caught:
        TimeSformer(**FIELDS, stem=stem)
    assert "\n" not in str(caught.value)


def test_the_gradient_reaches_every_convolution(random_variables, clips):
    model = TimeSformer(**FIELDS, stem=2)
    variables = random_variables(model)
    gradients = jax.jit(
        jax.grad(lambda v: (model.apply(v, {"frames": clips})[0] ** 2).sum())
    )(variables)  # fmt: skip
    for name, leaf in gradients["params"]["stem"].items():
        assert all(np.abs(x).max() > 1e-6 for x in jax.tree.leaves(leaf)), name
