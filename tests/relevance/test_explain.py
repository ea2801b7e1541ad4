"""`explain` on small TimeSformers: gradients, targets, batches, token order and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.timesformer import TimeSformer
from aver_jax.relevance import explain
from aver_jax.relevance.capture import captured
from aver_jax.relevance.explain import PATHS, _scaled, cls_row

BATCH, FRAMES, GRID, CLASSES = 3, 3, 2, 5
TYPES = ("divided_space_time", "joint_space_time", "space_only")


def make_model(attention):
    return TimeSformer(
        num_classes=CLASSES,
        image_size=8,
        num_frames=FRAMES,
        patch_size=8 // GRID,
        width=16,
        depth=2,
        num_heads=2,
        attention=attention,
    )


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return {"frames": rng.standard_normal((BATCH, FRAMES, 8, 8, 3)).astype(np.float32)}


@pytest.fixture(scope="module")
def variables_of(inputs):
    """Noisy weights: a fresh model's temporal layers are zero, and so are their gradients."""

    def make(attention):
        shapes = jax.eval_shape(make_model(attention).init, jax.random.key(0), inputs)
        rng = np.random.default_rng(1)
        return jax.tree.map(
            lambda s: np.float32(0.3 * rng.standard_normal(s.shape) + (len(s.shape) == 2) * 0.1),
            shapes,
        )

    return {attention: make(attention) for attention in TYPES}


@pytest.fixture(scope="module")
def captures(inputs, variables_of):
    """Attention type -> (what one pass leaves, its TIBAV rows by path), compiled once for each."""

    def capture(attention):
        model, paths = make_model(attention), PATHS[attention]
        taps = max(paths.values(), key=len)
        target = np.full(BATCH, -1, np.int32)

        def run(variables):
            found = captured(model, variables, inputs, taps, target, True)
            return found, {path: cls_row(found, "tibav", path, BATCH, FRAMES) for path in paths}

        return jax.tree.map(np.asarray, jax.jit(run)(variables_of[attention]))

    return functools.cache(capture)


def tibav_row(maps):
    """The cls row of the product of I + M over `maps`, listed in the order in which they act."""
    relevance = np.eye(len(maps[0]))
    for matrix in maps:
        relevance = relevance + matrix @ relevance
    return relevance[0, 1:]


def tibav_fused(found, tap):
    product = found.attention[tap].astype(np.float64) * found.gradient[tap]
    return np.clip(product, 0, None).mean(axis=2)


def dense_divided(found):
    """TIBAV of a divided model [B,T,h,w] through matrices over all 1 + N*T tokens."""
    patches = GRID * GRID
    time = tibav_fused(found, "attention_time").reshape(2, BATCH, patches, FRAMES, FRAMES)
    space = tibav_fused(found, "attention_space")
    space = space.reshape(2, BATCH, FRAMES, 1 + patches, 1 + patches)
    expected = np.zeros((BATCH, FRAMES, GRID, GRID))
    for b in range(BATCH):
        maps = []
        for layer in range(2):
            full = np.zeros((2, 1 + patches * FRAMES, 1 + patches * FRAMES))
            for p in range(patches):
                rows = 1 + p * FRAMES + np.arange(FRAMES)
                full[0][np.ix_(rows, rows)] = time[layer, b, p]
            for t in range(FRAMES):
                rows = np.append(0, 1 + np.arange(patches) * FRAMES + t)
                full[1][np.ix_(rows, rows)] += space[layer, b, t]
            maps += list(full)
        expected[b] = tibav_row(maps).reshape(GRID, GRID, FRAMES).transpose(2, 0, 1)
    return expected


def test_gradient_is_the_slope_of_the_targets_logit(inputs, variables_of, captures):
    """Central differences along random directions, for every attention of a divided model."""
    found, _ = captures(TYPES[0])
    model, variables = make_model(TYPES[0]), variables_of[TYPES[0]]
    np.testing.assert_array_equal(found.target, np.argmax(found.logits, axis=1))

    @jax.jit
    def target_logits(probes):
        logits, _ = model.apply(variables, inputs, probes=probes)
        return jnp.take_along_axis(logits, found.target[:, None], axis=1)[:, 0]

    rng = np.random.default_rng(2)
    for tap, gradient in found.gradient.items():
        assert np.abs(gradient).max() > 1e-3
        direction, step = np.float32(rng.standard_normal(gradient.shape)), 1e-3
        zeros = {name: np.zeros_like(other) for name, other in found.gradient.items()}
        up, down = (
            np.asarray(target_logits(zeros | {tap: sign * step * direction}))
            for sign in (np.float32(1), np.float32(-1))
        )
        # Rows of a clip are neighbours on axis 1, batch-major.
        by_clip = (gradient * direction).reshape(len(gradient), BATCH, -1).sum((0, 2))
        np.testing.assert_allclose(by_clip, (up - down) / (2 * step), rtol=1e-2, atol=2e-3)


def test_divided_space_time_maps_follow_the_models_token_order(inputs, variables_of, captures):
    expected = dense_divided(captures(TYPES[0])[0])
    maps = explain(make_model(TYPES[0]), variables_of[TYPES[0]], inputs, normalize=False).maps
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_joint_row_follows_the_models_token_order(captures):
    found, rows = captures("joint_space_time")
    fused = tibav_fused(found, "attention_joint")
    expected = np.stack([tibav_row(fused[:, b]) for b in range(BATCH)])
    expected = expected.reshape(BATCH, GRID * GRID, FRAMES).transpose(0, 2, 1)
    np.testing.assert_allclose(rows["space_time"], expected, rtol=1e-5, atol=1e-6 * expected.max())


@pytest.mark.parametrize("attention", ["divided_space_time", "space_only"])
def test_spatial_rows_treat_every_frame_alone(captures, attention):
    found, rows = captures(attention)
    fused = tibav_fused(found, "attention_space")
    expected = np.stack([tibav_row(fused[:, i]) for i in range(BATCH * FRAMES)])
    expected = expected.reshape(BATCH, FRAMES, GRID * GRID)
    np.testing.assert_allclose(rows["spatial"], expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_rollout_needs_no_gradient_and_no_class(inputs, variables_of, captures):
    model, variables = make_model("space_only"), variables_of["space_only"]
    maps = explain(model, variables, inputs, "rollout_mean", "spatial", normalize=False).maps
    fused = captures("space_only")[0].attention["attention_space"].astype(np.float64).mean(axis=2)
    expected = []
    for frame in range(BATCH * FRAMES):
        mixed = [(m + np.eye(len(m))) / 2 for m in fused[:, frame]]
        expected.append((mixed[1] @ mixed[0])[0, 1:])
    np.testing.assert_allclose(maps.ravel(), np.ravel(expected), rtol=1e-5)


def test_a_clip_is_explained_alike_whatever_shares_its_batch(inputs, variables_of):
    model, variables = make_model(TYPES[0]), variables_of[TYPES[0]]
    first = explain(model, variables, inputs)
    frames = inputs["frames"][[2, 1, 1]]
    frames[1] = 5
    second = explain(model, variables, {"frames": frames})
    for i, j in ((2, 0), (1, 2)):
        np.testing.assert_allclose(first.maps[i], second.maps[j], atol=2e-5)
        np.testing.assert_allclose(first.logits[i], second.logits[j], atol=1e-5)
        assert first.target[i] == second.target[j]


def test_target_is_the_predicted_class_unless_given(inputs, variables_of):
    model, variables = make_model(TYPES[0]), variables_of[TYPES[0]]
    predicted = explain(model, variables, inputs)
    np.testing.assert_array_equal(predicted.target, np.argmax(predicted.logits, axis=1))
    given = explain(model, variables, inputs, target=predicted.target)
    np.testing.assert_array_equal(given.maps, predicted.maps)
    others = (np.asarray(predicted.target) + 1) % CLASSES
    other = explain(model, variables, inputs, target=others)
    np.testing.assert_array_equal(other.target, others)
    assert (np.abs(other.maps - predicted.maps).max((1, 2, 3)) > 1e-2).all()
    one_for_all = explain(model, variables, inputs, target=3)
    np.testing.assert_array_equal(one_for_all.target, [3, 3, 3])


def test_maps_are_scaled_over_the_clips_whole_volume(inputs, variables_of):
    model, variables = make_model(TYPES[0]), variables_of[TYPES[0]]
    scaled = np.asarray(explain(model, variables, inputs).maps)
    raw = np.asarray(explain(model, variables, inputs, normalize=False).maps, np.float64)
    low, high = raw.min((1, 2, 3), keepdims=True), raw.max((1, 2, 3), keepdims=True)
    assert (low >= 0).all()
    np.testing.assert_allclose(scaled, (raw - low) / (high - low), atol=1e-5)
    # Frames compare: not every one of them reaches 1.
    assert scaled.max((2, 3)).min() < 1


def test_rounding_in_a_constant_map_is_not_scaled_up():
    maps = np.full((2, 2, 2, 2), 0.2, np.float32)
    maps[0, 0, 0, 0] = np.nextafter(np.float32(0.2), np.float32(1))
    maps[1, 0, 0, 0] = 0.3
    scaled = np.asarray(_scaled(maps))
    assert not scaled[0].any()
    assert scaled[1].max() == 1


@pytest.mark.parametrize(
    ("attention", "arguments", "message"),
    [
        (TYPES[0], {"method": "lime"}, "method is 'lime'; expected one of tibav, rollout_grad"),
        (TYPES[0], {"path": "temporal"}, "path is 'temporal'; expected 'space_time' or 'spatial'"),
        (TYPES[1], {"path": "spatial"}, "not exist in joint_space_time.*use path='space_time'"),
        (TYPES[2], {}, "'space_time' does not exist in space_only.*use path='spatial'"),
        (TYPES[0], {"modality": "audio"}, "modality is 'audio'"),
        (TYPES[0], {"target": 5}, "target has class 5; expected 0 to 4"),
        (TYPES[0], {"target": [-1, 0, 0]}, "target has class -1; expected 0 to 4"),
        (TYPES[0], {"target": [0, 1]}, r"target is int32 \[2\]; expected .* integers \[3\]"),
        (TYPES[0], {"target": 1.0}, r"target is float32 \[\]; expected a class index"),
    ],
)
def test_what_cannot_be_explained_is_one_clear_line(inputs, attention, arguments, message):
    with pytest.raises(ValueError, match=message):
        explain(make_model(attention), {"params": {}}, inputs, **arguments)
