"""Grad-CAM on a network small enough to be differentiated by hand, and its errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.modality import Modality
from aver_jax.relevance import explain, grad_cam, input_gradient, methods_of, paths_of
from aver_jax.relevance.grad_cam import class_activation

BATCH, FRAMES, SEGMENTS, CLASSES, CHANNELS = 2, 3, 4, 3, 5
HEIGHT = {"video": 4, "audio": 3}


@dataclasses.dataclass(frozen=True)
class TwoBranches:
    """maps = inputs through a matrix; features = tanh of means weighted in time; logits linear."""

    num_classes: int = CLASSES
    modalities = (Modality.VIDEO, Modality.AUDIO)
    has_attention = False
    compiler_options = None

    def for_inference(self, unrolled):
        return self

    def input_shapes(self, batch):
        shapes = {"frames": (batch, FRAMES, 8, 8, 3), "audio": (batch, SEGMENTS, 9, 10)}
        return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}

    def apply(self, variables, inputs, capture=(), probes=None):
        taps, logits = {}, 0.0
        for branch, name in (("video", "frames"), ("audio", "audio")):
            if name in inputs:
                maps = inputs[name] @ variables[branch]
                maps = maps + (probes or {}).get(f"maps_{branch}", 0.0)
                taps[f"maps_{branch}"] = maps
                pooled = jnp.tanh(maps.mean((2, 3)))
                if branch == "audio":
                    steps = jnp.arange(maps.shape[1])[None]
                    inside = steps < inputs["audio_segments"][:, None]
                    pooled = jnp.where(inside[..., None], pooled, 0)
                over_time = jnp.einsum("btd,t->bd", pooled, variables["time"][: maps.shape[1]])
                logits = logits + over_time**2 @ variables[f"head_{branch}"]
        return logits, {name: taps[name] for name in capture}


@pytest.fixture(scope="module")
def case():
    """(model, variables, inputs); the toy's inputs are already maps of a few places."""
    rng = np.random.default_rng(0)
    variables = {
        "video": rng.normal(size=(3, CHANNELS)),
        "audio": rng.normal(size=(2, CHANNELS)),
        "head_video": rng.normal(size=(CHANNELS, CLASSES)),
        "head_audio": rng.normal(size=(CHANNELS, CLASSES)),
        "time": np.array([0.5, 1.0, -2.0, 1.5]),
    }
    inputs = {
        "frames": rng.normal(size=(BATCH, FRAMES, HEIGHT["video"], 2, 3)),
        "audio": rng.normal(size=(BATCH, SEGMENTS, HEIGHT["audio"], 2, 2)),
    }
    inputs = {name: np.float32(value) for name, value in inputs.items()}
    inputs["audio_segments"] = np.array([4, 2], np.int32)
    return TwoBranches(), jax.tree.map(np.float32, variables), inputs


def by_hand(variables, inputs, branch, target, path):
    """Grad-CAM in float64 numpy with the derivative written out, one clip after the other."""
    name = {"video": "frames", "audio": "audio"}[branch]
    kernel, head = np.float64(variables[branch]), np.float64(variables[f"head_{branch}"])
    result = []
    for i in range(BATCH):
        maps = np.float64(inputs[name][i]) @ kernel
        steps, height, width, _ = maps.shape
        valid = inputs["audio_segments"][i] if branch == "audio" else steps
        pooled = np.tanh(maps.mean((1, 2)))
        time = np.where(np.arange(steps) < valid, variables["time"][:steps], 0)
        over_time = time @ pooled
        # dy/dA[t,y,x,d] is the same at every place: the pooling divides it evenly.
        slope = 2 * over_time * head[:, target[i]]
        gradient = time[:, None] * (1 - pooled**2) * slope / (height * width)
        if path == "space_time":
            gradient = np.broadcast_to(gradient[:valid].mean(0), gradient.shape)
        cam = np.maximum((maps * gradient[:, None, None]).sum(-1), 0)
        cam[valid:] = 0
        result.append(cam)
    return np.stack(result)


@pytest.mark.parametrize("path", ["space_time", "spatial"])
@pytest.mark.parametrize("branch", ["video", "audio"])
def test_maps_are_those_of_the_derivative_written_out(case, branch, path):
    model, variables, inputs = case
    modality = {"video": "frames", "audio": "audio"}[branch]
    for target in ([0, 2], [1, 1]):
        raw = explain(model, variables, inputs, "grad_cam", path, modality, target, normalize=False)
        expected = by_hand(variables, inputs, branch, target, path)
        assert expected.max() > 0
        assert raw.maps.dtype == np.float32
        np.testing.assert_allclose(raw.maps, expected, atol=1e-5 * expected.max())
        np.testing.assert_allclose(raw.peak, expected.max((1, 2, 3)), rtol=1e-4)
        scaled = np.asarray(explain(model, variables, inputs, None, path, modality, target).maps)
        for i, valid in enumerate(inputs["audio_segments"] if branch == "audio" else [FRAMES] * 2):
            inside = expected[i, :valid]
            low, high = inside.min(), inside.max()
            np.testing.assert_allclose(scaled[i, :valid], (inside - low) / (high - low), atol=1e-5)
            assert not scaled[i, valid:].any()


def test_gradient_is_of_the_fused_logit_also_by_finite_differences(case):
    model, variables, inputs = case
    found = explain(model, variables, inputs, modality="audio", path="spatial", normalize=False)
    np.testing.assert_array_equal(found.target, np.argmax(found.logits, axis=1))
    np.testing.assert_allclose(found.logits, model.apply(variables, inputs)[0], atol=1e-5)
    maps = inputs["audio"] @ variables["audio"]
    step = np.float32(0.02)
    gradient = np.zeros_like(maps)
    forward = jax.jit(lambda probe: model.apply(variables, inputs, probes={"maps_audio": probe})[0])
    # A whole map is moved at once: its places share the slope. Clips do not interact.
    for t in range(SEGMENTS):
        for d in range(CHANNELS):
            probe = np.zeros_like(maps)
            probe[:, t, :, :, d] = step
            change = np.asarray(forward(probe)) - np.asarray(forward(-probe))
            slope = np.take_along_axis(change, np.asarray(found.target)[:, None], axis=1)
            gradient[:, t, :, :, d] = slope[:, :, None] / (2 * step * maps[0, 0, ..., 0].size)
    valid = np.arange(SEGMENTS) < inputs["audio_segments"][:, None]
    expected = np.asarray(class_activation("grad_cam", maps, gradient, valid, "spatial"))
    np.testing.assert_allclose(found.maps, expected, atol=5e-3 * expected.max())


@pytest.mark.parametrize("path", ["space_time", "spatial"])
def test_grad_cam_plus_plus_is_that_of_the_papers_sums(path):
    maps, gradient, valid = random_maps()
    found = class_activation("grad_cam_plus_plus", maps, gradient, valid, path)
    for b in range(len(maps)):
        inside = [list(np.flatnonzero(valid[b]))]
        if path == "spatial":
            inside = [[t] for t in inside[0]]
        for steps in inside:
            a, g = np.float64(maps[b, steps]), np.float64(gradient[b, steps])
            cam = np.zeros(a.shape[:-1])
            for c in range(a.shape[-1]):
                bottom = 2 * g[..., c] ** 2 + a[..., c].sum() * g[..., c] ** 3 + 1e-6
                weight = (g[..., c] ** 2 / bottom * np.maximum(g[..., c], 0)).sum()
                cam += weight * a[..., c]
            expected = np.maximum(cam, 0)
            np.testing.assert_allclose(found[b, steps], expected, atol=1e-4 * expected.max())
        assert not found[b, ~valid[b]].any()


@pytest.mark.parametrize("path", ["space_time", "spatial"])
def test_eigen_cam_is_the_first_principal_component(path):
    maps, _, valid = random_maps()
    found = class_activation("eigen_cam", maps, None, valid, path)
    for b in range(len(maps)):
        groups = [np.flatnonzero(valid[b])]
        if path == "spatial":
            groups = [[t] for t in groups[0]]
        for steps in groups:
            rows = np.float64(maps[b, steps]).reshape(-1, maps.shape[-1])
            values, vectors = np.linalg.eigh(rows.T @ rows)
            cam = rows @ vectors[:, values.argmax()]
            cam *= np.sign(cam[np.abs(cam).argmax()])
            expected = np.maximum(cam, 0).reshape(len(steps), *maps.shape[2:4])
            np.testing.assert_allclose(found[b, steps], expected, atol=1e-4 * expected.max())


def random_maps():
    rng = np.random.default_rng(1)
    maps, gradient = rng.normal(size=(2, 2, 4, 3, 2, 5)).astype(np.float32)
    # As after a ReLU, and with one direction that stands out.
    maps = np.abs(maps) + rng.uniform(1, 2, 5).astype(np.float32)
    return maps, gradient, np.array([[True] * 4, [True, True, False, False]])


def test_eigen_cam_knows_no_class(case):
    model, variables, inputs = case
    one, other = (explain(model, variables, inputs, "eigen_cam", target=t).maps for t in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_what_padding_holds_changes_nothing(case):
    model, variables, inputs = case
    audio = inputs["audio"].copy()
    audio[1, 2:] = 50
    for path in paths_of(model):
        before, after = (
            explain(model, variables, inputs | {"audio": a}, path=path, modality="audio")
            for a in (inputs["audio"], audio)
        )
        np.testing.assert_array_equal(before.maps, after.maps)


def test_a_clip_without_one_modality_is_explained_by_the_other(case):
    model, variables, inputs = case
    frames = {"frames": inputs["frames"]}
    found = explain(model, variables, frames)
    np.testing.assert_allclose(found.logits, model.apply(variables, frames)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "tibav"}, "'tibav' does not explain a TwoBranches; it offers grad_cam"),
        ({"method": "lime"}, "method is 'lime'; expected one of .*tibav.*grad_cam"),
        ({"path": "temporal"}, "path is 'temporal'; expected 'space_time' or 'spatial'"),
        ({"modality": "text"}, "modality is 'text'.*by modality 'video' or 'audio'"),
        ({"target": 3}, "target has class 3; expected 0 to 2"),
    ],
)
def test_what_cannot_be_explained_is_one_clear_line(case, arguments, message):
    model, variables, inputs = case
    with pytest.raises(ValueError, match=message):
        explain(model, variables, inputs, **arguments)


def test_what_a_model_lacks_is_named(case):
    model, variables, inputs = case
    assert methods_of(model) == (*grad_cam.METHODS, *input_gradient.METHODS)
    only_sound = {name: value for name, value in inputs.items() if name != "frames"}
    with pytest.raises(ValueError, match="the inputs are audio, audio_segments"):
        explain(model, variables, only_sound)
    several = TwoBranches(num_classes=FrozenTargets(emotion=6, sex=2))
    with pytest.raises(ValueError, match=r"several targets \(emotion, sex\)"):
        explain(several, variables, inputs)


class FrozenTargets(dict):
    """A mapping that a model can hold and still be hashed."""

    def __hash__(self):
        return hash(tuple(self.items()))
