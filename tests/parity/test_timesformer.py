"""TimeSformer against transformers' implementation, with noise on every parameter."""

import jax
import numpy as np
import pytest
import torch

from aver_jax.models.timesformer.resize import resized_pos_embed, resized_time_embed
from aver_jax.models.timesformer.timesformer import ATTENTION_TYPES, TimeSformer
from aver_jax.models.weights.timesformer import convert
from tools import make_reference

pytestmark = pytest.mark.parity


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def numpy_state(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module", params=ATTENTION_TYPES)
def both(request):
    """What torch and jax compute for the same noisy model, each a dict, and gradients as trees."""
    model = make_reference.noisy_model(
        request.param, width=48, heads=4, hidden=96, depth=3, image_size=32, num_frames=5
    )
    rng = np.random.default_rng(1)
    frames = rng.normal(size=(2, 5, 32, 32, 3)).astype(np.float32)
    cotangent = rng.normal(size=(2, 6)).astype(np.float32)
    theirs = make_reference.outputs(model, frames, cotangent)

    converted = convert(numpy_state(model), num_heads=4, num_frames=5)
    ours = TimeSformer(**converted.fields)
    capture = tuple(ours.tap_shapes(2))

    @jax.jit
    def computed(params, frames):
        def apply(params, frames, capture=()):
            return ours.apply({"params": params}, {"frames": frames}, capture=capture)

        # The gradients without capture go through the fused attention.
        _, pullback = jax.vjp(lambda *args: apply(*args)[0], params, frames)
        return apply(params, frames, capture), apply(params, frames)[0], pullback(cotangent)

    with jax.default_matmul_precision("highest"):
        (logits, taps), fused_logits, gradients = computed(converted.params, frames)
    return theirs, taps | {"logits": logits, "fused": fused_logits}, gradients


def test_logits_agree(both):
    theirs, ours, _ = both
    assert relative_error(ours["logits"], theirs["logits"]) < 1e-5
    assert relative_error(ours["fused"], theirs["logits"]) < 1e-5


def test_output_of_every_block_agrees(both):
    theirs, ours, _ = both
    for layer, block in enumerate(theirs["block"]):
        assert relative_error(ours["block"][layer], block) < 1e-5


def test_attention_maps_agree(both):
    theirs, ours, _ = both
    names = [name for name in theirs if name.startswith("attention")]
    assert sorted(names) == sorted(name for name in ours if name.startswith("attention"))
    for name in names:
        assert relative_error(ours[name], theirs[name]) < 1e-5


def test_every_gradient_agrees(both):
    theirs, _, (gradients, frames) = both
    state = {
        name.removeprefix("gradient/"): value
        for name, value in theirs.items()
        if name.startswith("gradient/") and name != "gradient/frames"
    }
    expected = convert(state, num_heads=4).params
    errors = jax.tree.map(relative_error, gradients, expected)
    worst = max(jax.tree_util.tree_leaves_with_path(errors), key=lambda item: item[1])
    assert worst[1] < 1e-5, worst
    assert relative_error(frames, theirs["gradient/frames"]) < 1e-5
    # A gradient of zeros would agree whatever the order of frames.
    assert all(np.abs(value).max() > 1e-6 for value in jax.tree.leaves(gradients))


@pytest.mark.parametrize(("old", "new"), [(14, 7), (14, 28), (14, 21), (28, 46), (3, 8), (8, 3)])
def test_embeddings_are_resized_as_torch_does(old, new):
    rng = np.random.default_rng(0)
    time = rng.normal(size=(1, old, 4)).astype(np.float32)
    grid = rng.normal(size=(1, old, old, 4)).astype(np.float32)

    def interpolated(x, size, mode):
        moved = torch.tensor(x).movedim(-1, 1)
        return torch.nn.functional.interpolate(moved, size=size, mode=mode).movedim(1, -1)

    expected = interpolated(time, new, "linear")
    np.testing.assert_allclose(resized_time_embed(time, new), expected, atol=1e-5)
    positions = np.concatenate([np.ones((1, 1, 4), np.float32), grid.reshape(1, -1, 4)], axis=1)
    found = resized_pos_embed(positions, new)
    expected = interpolated(grid, (new, new), "bicubic").reshape(1, -1, 4)
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0], positions[:, 0])
