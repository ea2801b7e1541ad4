"""`explain` on small TimeSformers: torch's maps, gradients, targets, batches and errors.

The weights are noisy on purpose: a fresh model's temporal layers are zero, and so are their
gradients. They and torch's maps come from `tools/reference_relevance.py`.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.gradient_rules import TRUE
from aver_jax.models.timesformer.timesformer import TimeSformer
from aver_jax.models.weights.timesformer import convert
from aver_jax.relevance import explain
from aver_jax.relevance.attention import METHODS as ALL_METHODS
from aver_jax.relevance.attention import PATHS, cls_row
from aver_jax.relevance.capture import captured, fused_attention_maps
from aver_jax.relevance.explain import _scaled

BATCH, FRAMES, GRID, CLASSES = 3, 3, 2, 5
TYPES = ("divided_space_time", "joint_space_time", "space_only")
# The files hold the maps of true gradients.
METHODS = {name: how for name, how in ALL_METHODS.items() if how.rules == TRUE}
REFERENCES = Path(__file__).parents[1] / "reference"


@functools.cache
def reference(attention):
    """(model, variables, inputs, what torch found)."""
    with np.load(REFERENCES / f"relevance_{attention}.npz") as file:
        found = dict(file)
    weights = {name.removeprefix("weight/"): found.pop(name) for name in list(found) if "/" in name}
    maps = {name: weights.pop(name) for name in list(weights) if name.split("/")[0] in METHODS}
    converted = convert(weights, num_heads=2, num_frames=FRAMES)
    frames = found.pop("frames").astype(np.float32)
    return (
        TimeSformer(**converted.fields),
        {"params": converted.params},
        {"frames": frames},
        found | maps,
    )


@functools.cache
def captures(attention):
    """(what one pass leaves, the rows {(method, path): [B,T,N]}), compiled once for each type.

    The rows twice: of heads fused where their gradient arises, and of captured ones.
    """
    model, variables, inputs, _ = reference(attention)
    taps = max(PATHS[attention].values(), key=len)
    target = np.full(BATCH, -1, np.int32)

    def run(variables):
        found = captured(model, variables, inputs, taps, target, True)
        rows = {}
        for method, (fuse, gradient, _, rules) in METHODS.items():
            arrays = [found.taps, found.gradient][: 1 + gradient]
            ways = [{tap: fuse(*(each[tap] for each in arrays)) for tap in taps}]
            if gradient:
                ways += [
                    fused_attention_maps(
                        model, variables, inputs, taps, target, fuse, rules
                    ).gradient
                ]
            for path, through in PATHS[attention].items():
                rows[f"{method}/{path}"] = [
                    cls_row({tap: maps[tap] for tap in through}, method, path, BATCH, FRAMES)
                    for maps in ways
                ]
        return found, rows

    return jax.tree.map(np.asarray, jax.jit(run)(variables))


@pytest.mark.parametrize("attention", TYPES)
def test_rows_are_those_of_torch_autograd_and_dense_matrices(attention):
    found, rows = captures(attention)
    *_, expected = reference(attention)
    np.testing.assert_array_equal(found.target, expected["target"])
    np.testing.assert_allclose(found.logits, expected["logits"], rtol=1e-5, atol=1e-5)
    assert len(rows) == len(METHODS) * len(PATHS[attention])
    assert sum(map(len, rows.values())) > len(rows)
    for name, ways in rows.items():
        maps = expected[name]
        for row in ways:
            np.testing.assert_allclose(
                row.reshape(maps.shape), maps, rtol=1e-5, atol=1e-5 * maps.max(), err_msg=name
            )


def test_gradient_is_the_slope_of_the_targets_logit():
    """Central differences along random directions, for every attention of a divided model."""
    found, _ = captures(TYPES[0])
    model, variables, inputs, _ = reference(TYPES[0])
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


def test_explain_returns_torchs_maps():
    model, variables, inputs, expected = reference("divided_space_time")
    raw = explain(model, variables, inputs, normalize=False)
    assert raw.maps.dtype == np.float32
    largest = expected["tibav/space_time"].max()
    np.testing.assert_allclose(raw.maps, expected["tibav/space_time"], atol=1e-5 * largest)
    np.testing.assert_array_equal(raw.target, expected["target"])


def test_rollout_knows_no_class():
    model, variables, inputs, expected = reference("space_only")
    raw = explain(model, variables, inputs, "rollout_mean", "spatial", target=0, normalize=False)
    other = explain(model, variables, inputs, "rollout_mean", "spatial", target=4, normalize=False)
    np.testing.assert_allclose(raw.maps, expected["rollout_mean/spatial"], rtol=1e-5)
    np.testing.assert_array_equal(raw.maps, other.maps)
    np.testing.assert_array_equal(other.target, [4, 4, 4])


def test_a_clip_is_explained_alike_whatever_shares_its_batch():
    model, variables, inputs, _ = reference(TYPES[0])
    first = explain(model, variables, inputs)
    frames = inputs["frames"][[2, 1, 1]]
    frames[1] = 5
    second = explain(model, variables, {"frames": frames})
    for i, j in ((2, 0), (1, 2)):
        np.testing.assert_allclose(first.maps[i], second.maps[j], atol=2e-5)
        np.testing.assert_allclose(first.logits[i], second.logits[j], atol=1e-5)
        assert first.target[i] == second.target[j]


def test_target_is_the_predicted_class_unless_given():
    model, variables, inputs, _ = reference(TYPES[0])
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


def test_maps_are_scaled_over_the_clips_whole_volume():
    model, variables, inputs, _ = reference(TYPES[0])
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
    scaled = np.asarray(_scaled(maps, np.ones((2, 2), bool)))
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
def test_what_cannot_be_explained_is_one_clear_line(attention, arguments, message):
    model, variables, inputs, _ = reference(attention)
    with pytest.raises(ValueError, match=message):
        explain(model, variables, inputs, **arguments)


def test_clips_on_several_devices_are_explained_where_they_lie():
    model, variables, inputs, _ = reference("divided_space_time")
    inputs = {name: array[:2] for name, array in inputs.items()}
    alone = explain(model, variables, inputs, normalize=False)
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("data",), auto, devices=jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = {name: jax.device_put(array, sharding) for name, array in inputs.items()}
    shared = explain(model, variables, spread, normalize=False)
    assert len(shared.maps.sharding.device_set) == 2
    np.testing.assert_allclose(shared.maps, alone.maps, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(shared.target, alone.target)
