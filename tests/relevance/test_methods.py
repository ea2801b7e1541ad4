"""What holds for every method that explains a TimeSformer, for every attention type and path."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models import init_variables
from aver_jax.models.gradient_rules import LIBRA, TRUE
from aver_jax.models.timesformer.timesformer import ATTENTION_TYPES, TimeSformer
from aver_jax.relevance import METHODS, explain, methods_of, paths_of
from aver_jax.relevance.explain import traced
from aver_jax.relevance.head_fusion import without_lowest
from aver_jax.relevance.propagation import propagated

FRAMES, SIDE, PATCH, CLASSES, WIDTH = 3, 12, 4, 4, 16
GRID = SIDE // PATCH


def small_model(attention, **fields):
    return TimeSformer(
        num_classes=CLASSES,
        image_size=SIDE,
        num_frames=FRAMES,
        patch_size=PATCH,
        width=WIDTH,
        depth=2,
        num_heads=2,
        attention=attention,
        **fields,
    )


def noisy(model):
    """Variables with noise on all of them: fresh temporal layers are zero."""
    rng = np.random.default_rng(1)

    def drawn(path, leaf):
        return np.float32((path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape))

    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(drawn, shapes)


def clips(number):
    shape = (number, FRAMES, SIDE, SIDE, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def all_maps(model, variables, frames, chunk=None):
    """{(method, path): Relevance}, one compiled function for all of them."""
    return {
        (method, path): explain(model, variables, {"frames": frames}, method, path, chunk=chunk)
        for method, path in itertools.product(methods_of(model), paths_of(model))
    }


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_every_method_explains_eight_clips_as_it_does_each(attention):
    model = small_model(attention)
    variables, frames = noisy(model), clips(8)
    together = all_maps(model, variables, frames)
    assert {method for method, _ in together} == set(METHODS)
    alone = [all_maps(model, variables, frames[i : i + 1]) for i in range(8)]
    for key, found in together.items():
        maps = np.asarray(found.maps)
        assert maps.dtype == np.float32
        pixels = maps.shape[2:] == (SIDE, SIDE)
        assert maps.shape == (8, FRAMES, SIDE, SIDE) if pixels else (8, FRAMES, GRID, GRID), key
        assert np.isfinite(maps).all(), key
        assert maps.min() >= 0, key
        np.testing.assert_allclose(maps.max((1, 2, 3)), 1, atol=1e-6, err_msg=str(key))
        singles = np.concatenate([each[key].maps for each in alone])
        np.testing.assert_allclose(maps, singles, atol=2e-4, err_msg=str(key))
        peaks = np.concatenate([each[key].peak for each in alone])
        np.testing.assert_allclose(found.peak, peaks, rtol=1e-4, err_msg=str(key))


@pytest.mark.slow
def test_chunks_change_no_map():
    """Three at a time of eight: the last chunk is not full."""
    model = small_model(ATTENTION_TYPES[0])
    variables, frames = noisy(model), clips(8)
    whole, chunked = (all_maps(model, variables, frames, chunk) for chunk in (None, 3))
    for key, found in whole.items():
        for name, expected, given in zip(found._fields, found, chunked[key], strict=True):
            np.testing.assert_allclose(given, expected, atol=2e-4, err_msg=f"{key} {name}")


@pytest.mark.slow
def test_memory_is_that_of_a_chunk():
    model = small_model(ATTENTION_TYPES[0])
    variables = noisy(model)

    def temporary(chunk):
        shapes = jax.eval_shape(lambda: {"frames": jnp.asarray(clips(32))})
        lowered = jax.jit(lambda v, x: explain(model, v, x, "tibav", chunk=chunk).maps).lower(
            variables, shapes
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(4) < 0.4 * temporary(None)


def seeing_model(attention):
    """(model, variables) that looks for bright patches by its attention, and nothing else.

    Feature 0 of a token is brightness, feature 1 what has been seen. Queries are the same for all,
    keys and values are brightness, and what was seen speaks for class 2. All tokens have a base, so
    that a norm has something to divide by; the first half of the features is left out of it.
    """
    model = small_model(attention)
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    params = variables["params"]
    base = np.zeros(WIDTH)
    base[WIDTH // 2 :] = np.tile([1.0, -1.0], WIDTH // 4)
    params["pos_embed"][...] = base
    params["patch_embed"]["kernel"][..., 0] = 1 / (PATCH * PATCH * 3)
    blocks = params["blocks"]
    for name in ("norm1", "norm2", "temporal_norm1"):
        if name in blocks:
            blocks[name]["scale"][...] = 1
    params["norm"]["scale"][...] = 1
    for name in ("attn", "temporal_attn"):
        if name not in blocks:
            continue
        qkv, head = blocks[name]["qkv"], WIDTH // 2
        qkv["bias"][:, :WIDTH] = 1
        qkv["kernel"][:, 0, WIDTH : 2 * WIDTH] = 0.3
        qkv["kernel"][:, 0, 2 * WIDTH] = 1
        qkv["kernel"][:, 0, 2 * WIDTH + head] = 1
        blocks[name]["proj"]["kernel"][:, [0, head], 1] = 0.5
    if "temporal_fc" in blocks:
        blocks["temporal_fc"]["kernel"][...] = 0.3 * np.eye(WIDTH)
    params["head"]["kernel"][1, 2] = 1
    return model, variables


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_a_single_hot_patch_in_one_frame_lights_that_patch_in_that_frame(attention):
    model, variables = seeing_model(attention)
    places = [(0, 0, 1), (1, 2, 0), (2, 1, 1)]
    frames = np.zeros((3, FRAMES, SIDE, SIDE, 3), np.float32)
    for clip, (t, y, x) in enumerate(places):
        frames[clip, t, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH] = 3
    for (method, path), found in all_maps(model, variables, frames).items():
        np.testing.assert_array_equal(found.target, 2)
        if method == "eigen_cam":
            # It knows no class: what all dark patches share is the largest component.
            continue
        maps = np.asarray(found.maps)
        if maps.shape[2] == SIDE:
            maps = maps.reshape(3, FRAMES, GRID, PATCH, GRID, PATCH).mean((3, 5))
        for clip, place in zip(maps, places, strict=True):
            others = np.delete(clip.ravel(), np.ravel_multi_index(place, clip.shape))
            assert clip[place] > 2 * others.max(), f"{method} {path}"


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_every_method_is_lowered_for_chips_that_are_not_here(platform):
    model = small_model(ATTENTION_TYPES[0], dtype=jnp.bfloat16)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = functools.partial(jax.ShapeDtypeStruct, sharding=device)
    variables = jax.tree.map(lambda x: like(x.shape, x.dtype), noisy(model))
    inputs = {"frames": like((2, FRAMES, SIDE, SIDE, 3), np.float32)}
    for method in METHODS:
        text = traced(model, variables, inputs, method).lower(lowering_platforms=(platform,))
        assert "stablehlo" in text.as_text()


ADDED = ("bias", "cls_token", "pos_embed", "time_embed")


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_libragrad_is_complete(attention):
    """Pixels, and all that the network adds, times their gradients, sum to the logit."""
    model = small_model(attention, stem=1)
    variables, frames = noisy(model), clips(2)
    target = np.array([1, 3])

    @functools.partial(jax.jit, static_argnums=0)
    def sums(rules):
        """(logits, x g of the frames, b g of what is added), summed over the rest: [B]."""

        def of_clip(clip, chosen):
            def logit(variables, clip):
                return model.apply(variables, {"frames": clip[None]}, rules=rules)[0][0, chosen]

            value, (of_variables, of_clip) = jax.value_and_grad(logit, (0, 1))(variables, clip)
            leaves = jax.tree_util.tree_leaves_with_path(
                jax.tree.map(lambda x, g: (x * g).sum(), variables, of_variables)
            )
            added = sum(part for path, part in leaves if path[-1].key in ADDED)
            return value, (clip * of_clip).sum(), added

        return jax.vmap(of_clip)(frames, target)

    logits, pixels, added = sums(LIBRA)
    np.testing.assert_allclose(pixels + added, logits, rtol=1e-4, atol=1e-4)
    assert np.abs(added).min() > 1e-2
    # The true gradient promises nothing of the kind.
    _, true_pixels, true_added = sums(TRUE)
    assert np.abs(true_pixels + true_added - logits).min() > 1e-2
    found, _, signed = jax.jit(propagated, static_argnums=(0, 4))(
        model, variables, {"frames": frames}, target, "libra_grad"
    )
    np.testing.assert_allclose(signed.sum((1, 2, 3, 4)), pixels, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[np.arange(2), target], logits, rtol=1e-4, atol=1e-5)


def test_rollout_drops_the_lowest_attention_as_gildenblats_code_does():
    """Loops over clips and layers, dense matrices, rows that sum to 1."""
    model = small_model("joint_space_time")
    variables, frames, ratio = noisy(model), clips(2), 0.6
    _, taps = jax.jit(
        lambda x: model.apply(variables, {"frames": x}, capture=("attention_joint",))
    )(frames)
    fused = np.asarray(taps["attention_joint"]).min(axis=2).astype(np.float64)
    expected = []
    for clip in range(2):
        total = np.eye(fused.shape[-1])
        for layer in fused[:, clip]:
            flat = layer.copy().ravel()
            indices = np.argsort(flat)[: int(flat.size * ratio)]
            flat[indices[indices != 0]] = 0
            mixed = flat.reshape(layer.shape) + np.eye(len(layer))
            total = mixed / mixed.sum(1, keepdims=True) @ total
        expected.append(total[0, 1:].reshape(GRID, GRID, FRAMES).transpose(2, 0, 1))
    arguments = (model, variables, {"frames": frames}, "rollout_min")
    found = explain(*arguments, normalize=False, discard_ratio=ratio).maps
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    whole = explain(*arguments, normalize=False).maps
    assert np.abs(whole - found).max() > 1e-3


def test_the_first_entry_of_a_map_is_never_dropped():
    fused = np.array([[[0.1, 0.4], [0.3, 0.2]], [[0.4, 0.1], [0.2, 0.3]]], np.float32)
    kept = without_lowest(jnp.asarray(fused), 0.5)
    np.testing.assert_allclose(kept, [[[0.1, 0.4], [0.3, 0]], [[0.4, 0], [0, 0.3]]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk": 0}, "chunk is 0; expected at least 1 clip, or None for all"),
        ({"discard_ratio": 0.5}, "method 'tibav' discards nothing"),
        ({"method": "rollout_min", "discard_ratio": 1}, "expected at least 0, less than 1"),
        ({"method": "legrad", "target": CLASSES}, "target has class 4; expected 0 to 3"),
    ],
)
def test_wrong_options_are_one_clear_line(arguments, message):
    model = small_model(ATTENTION_TYPES[0])
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    with pytest.raises(ValueError, match=message):
        explain(model, variables, {"frames": clips(1)}, **arguments)
