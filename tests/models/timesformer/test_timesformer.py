"""TimeSformer: sizes, initial weights, token order, stored reference, taps and probes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models import init_variables
from aver_jax.models.timesformer.timesformer import ATTENTION_TYPES, TimeSformer
from aver_jax.models.weights.timesformer import convert

REFERENCE = Path(__file__).parents[2] / "reference"
CLIPS = np.zeros((2, 3, 16, 16, 3), np.float32)


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("attention", "count"),
    [
        ("divided_space_time", 121_263_366),
        ("joint_space_time", 85_809_414),
        ("space_only", 85_803_270),
    ],
)
def test_base_model_has_the_published_number_of_parameters(attention, count):
    model = TimeSformer(num_classes=6, attention=attention)
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def test_initial_weights_are_those_of_the_official_code():
    model = TimeSformer(num_classes=6, image_size=64, width=96, depth=3, num_heads=3)
    params = init_variables(model, jax.random.key(0))["params"]
    blocks = params["blocks"]
    for zero in (blocks["temporal_fc"], params["time_embed"], params["patch_embed"]["bias"]):
        assert all(not np.any(x) for x in jax.tree.leaves(zero))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        if name.endswith("['bias']"):
            assert not np.any(leaf), name
        elif name.endswith("['scale']"):
            assert np.all(leaf == 1), name
        elif "pos_embed" in name or not ("embed" in name or "temporal_fc" in name):
            assert abs(leaf.std() - 0.02) < 0.002, name
            assert np.abs(leaf).max() <= 0.1, name
    # Layers of one stack are drawn one by one.
    assert not np.allclose(blocks["attn"]["qkv"]["kernel"][0], blocks["attn"]["qkv"]["kernel"][1])
    bound = (16 * 16 * 3) ** -0.5
    patch = np.abs(params["patch_embed"]["kernel"])
    assert 0.99 * bound < patch.max() <= bound


@pytest.fixture(scope="module", params=ATTENTION_TYPES)
def reference(request):
    """A stored model of transformers, what it computed, and what ours computes."""
    with np.load(REFERENCE / f"timesformer_{request.param}.npz") as file:
        stored = {name: file[name].astype(np.float32) for name in file}

    def tree(prefix):
        state = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        return convert(state, num_heads=3, num_frames=stored["frames"].shape[1])

    model = TimeSformer(**tree("weight/").fields)

    @jax.jit
    def computed(params, frames):
        def logits_and_taps(params, capture):
            return model.apply({"params": params}, {"frames": frames}, capture=capture)

        logits, pullback = jax.vjp(lambda params: logits_and_taps(params, ())[0], params)
        (gradients,) = pullback(stored["cotangent"])
        explicit_logits, taps = logits_and_taps(params, tuple(model.tap_shapes(2)))
        return taps | {"logits": logits, "explicit": explicit_logits, "gradients": gradients}

    with jax.default_matmul_precision("highest"):
        ours = computed(tree("weight/").params, stored["frames"])
    return stored | {"gradients": tree("gradient/").params}, ours, model


def test_logits_are_those_of_transformers_fused_and_explicit(reference):
    stored, ours, _ = reference
    assert relative_error(ours["logits"], stored["logits"]) < 1e-5
    assert relative_error(ours["explicit"], stored["logits"]) < 1e-5


def test_taps_are_those_of_transformers_and_have_the_declared_shapes(reference):
    stored, ours, model = reference
    shapes = model.tap_shapes(2)
    assert {name: ours[name].shape for name in shapes} == shapes
    # "norm1" is compared where it is used: the CAM family in tests/parity.
    for name in shapes.keys() - {"features", "norm1"}:
        assert relative_error(ours[name], stored[name]) < 1e-5, name


def test_gradients_of_all_parameters_are_those_of_transformers(reference):
    stored, ours, _ = reference
    errors = jax.tree.map(relative_error, ours["gradients"], stored["gradients"])
    assert max(jax.tree.leaves(errors)) < 1e-5, errors


def test_token_of_patch_p_in_frame_t_lies_at_1_plus_p_times_frames_plus_t(tiny, random_variables):
    model = tiny[0].clone(depth=1, image_size=24)
    variables = random_variables(model)
    params = variables["params"]
    # Nothing is added to the embeddings by such a layer.
    blocks = params["blocks"]
    for branch in (blocks["temporal_fc"], blocks["attn"]["proj"], blocks["mlp"]["fc2"]):
        branch |= {name: np.zeros_like(value) for name, value in branch.items()}
    clips = np.random.default_rng(2).normal(size=(2, 3, 24, 24, 3)).astype(np.float32)
    _, taps = jax.jit(lambda x: model.apply(variables, {"frames": x}, capture=("block",)))(clips)
    kernel = params["patch_embed"]["kernel"].reshape(-1, 24)
    for b, t, row, column in np.ndindex(2, 3, 3, 3):
        p = row * 3 + column
        patch = clips[b, t, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        expected = patch.reshape(-1) @ kernel + params["patch_embed"]["bias"]
        expected += params["pos_embed"][0, 1 + p] + params["time_embed"][0, t]
        np.testing.assert_allclose(taps["block"][0, b, 1 + p * 3 + t], expected, atol=1e-5)
    np.testing.assert_allclose(
        taps["block"][0, 1, 0], (params["cls_token"] + params["pos_embed"][:, :1])[0, 0], atol=1e-6
    )


def random(shape):
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


def zero_probes(shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def probed(tiny):
    """The tiny model as a compiled function of frames and all its probes, and its tap shapes."""
    model, variables = tiny
    shapes = model.tap_shapes(2)

    @jax.jit
    def run(frames, probes):
        return model.apply(
            variables, {"frames": frames}, capture=tuple(sorted(shapes)), probes=probes
        )

    return run, shapes


def test_rows_of_attention_taps_follow_clips_patches_and_frames(probed, clips):
    run, shapes = probed
    zeros = zero_probes(shapes)
    _, before = run(clips, zeros)
    changed = clips.copy()
    changed[1, 2, 8:, :8] += 1  # clip 1, frame 2, lower left patch: p = 2 of 4
    _, after = run(changed, zeros)
    time = np.abs(after["attention_time"] - before["attention_time"])[0].max(axis=(1, 2, 3))
    space = np.abs(after["attention_space"] - before["attention_space"])[0].max(axis=(1, 2, 3))
    assert set(np.flatnonzero(time > 1e-6)) == {1 * 4 + 2}
    # Through time attention the patch changes in every frame of its clip, not in the other clip.
    assert set(np.flatnonzero(space > 1e-6)) == {3, 4, 5}
    for name in ("attention_time", "attention_space"):
        np.testing.assert_allclose(before[name].sum(-1), 1, atol=1e-5)


def test_probe_is_added_to_its_tap(probed, clips):
    run, shapes = probed
    zeros = zero_probes(shapes)
    _, before = run(clips, zeros)
    for name, shape in shapes.items():
        probe = 0.1 * random(shape)
        if name != "features":
            probe[1:] = 0  # the first layer's tap, then, changes by the probe alone
        _, after = run(clips, zeros | {name: probe})
        layer = slice(None) if name == "features" else 0
        np.testing.assert_allclose(
            after[name][layer] - before[name][layer], probe[layer], atol=1e-5
        )


def test_gradient_of_a_probe_is_the_change_it_makes(probed, clips):
    run, shapes = probed
    zeros = zero_probes(shapes)

    @jax.jit
    def gradients(probes):
        return jax.grad(lambda probes: run(clips, probes)[0][1, 3])(probes)

    gradient = gradients(zeros)
    for name, shape in shapes.items():
        step = 5e-3 * random(shape)
        up, down = (run(clips, zeros | {name: sign * step})[0][1, 3] for sign in (1, -1))
        expected = np.vdot(gradient[name], step)
        assert expected != 0, name
        np.testing.assert_allclose(float(up - down) / 2, expected, rtol=2e-2, atol=2e-5)
        # Clip 0 has no part in the logit of clip 1.
        axis = 0 if name == "features" else 1
        assert not np.any(np.split(np.asarray(gradient[name]), 2, axis)[0]), name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"capture": ("attention_joint",)}, r"no tap \['attention_joint'\] in a divided"),
        ({"probes": {"atention": np.zeros(1)}}, "no tap"),
        ({"probes": {"attention_time": np.zeros((2, 4, 3, 3, 3))}}, r"expected \(2, 8, 3, 3, 3\)"),
        ({"train": True}, "found none"),
        ({"train": True, "keys": jax.random.key(0)}, r"shape \(2,\), one per clip"),
        ({"train": True, "keys": np.zeros((2, 2), np.uint32)}, "found uint32"),
        ({"inputs": {"video": CLIPS}}, r"found \['video'\]"),
        ({"inputs": {"frames": CLIPS[0]}}, r"frames have shape \(3, 16, 16, 3\)"),
        ({"inputs": {"frames": CLIPS[:, :2]}}, r"expects .* \(B, 3, 16, 16, 3\)"),
        ({"inputs": {"frames": CLIPS.astype(np.uint8)}}, "frames are uint8"),
    ],
)
def test_call_that_does_not_fit_the_model_is_refused(tiny, call, message):
    model, variables = tiny
    with pytest.raises(ValueError, match=message):
        model.apply(variables, **{"inputs": {"frames": CLIPS}} | call)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="runs there: tests/test_gpu.py")
def test_cudnn_attention_is_refused_where_there_is_none(tiny):
    model, variables = tiny
    with pytest.raises(ValueError, match="needs an NVIDIA GPU and cuDNN: use 'xla'"):
        model.clone(dtype=jnp.bfloat16, kernel="cudnn").apply(variables, {"frames": CLIPS})


def test_bfloat16_computes_float32_results_from_float32_parameters(tiny, probed, clips):
    model, variables = tiny
    half = model.clone(dtype=jnp.bfloat16)
    run, shapes = probed
    expected, _ = run(clips, zero_probes(shapes))

    def computed(variables):
        return half.apply(variables, {"frames": clips}, capture=("attention_space", "block"))

    logits, taps = jax.jit(computed)(variables)
    gradients = jax.eval_shape(jax.grad(lambda variables: computed(variables)[0].sum()), variables)
    assert {x.dtype for x in jax.tree.leaves((gradients, logits, taps))} == {jnp.dtype("float32")}
    assert 1e-6 < relative_error(logits, expected) < 5e-2
    # A softmax in bfloat16 would miss by 4e-3.
    np.testing.assert_allclose(taps["attention_space"].sum(-1), 1, atol=1e-5)
