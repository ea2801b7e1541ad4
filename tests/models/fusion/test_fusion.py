"""Fusion of any modalities: parts, heads, missing modalities, modality dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from aver_jax.models.fusion.fusion import NETWORKS, FusionNetwork, kept_modalities

BATCH = 6
NAMES = ("voice", "face", "text")
WIDTHS = {"text": 3, "voice": 5, "face": 7}
PARTS = {"late": ("scoring",), "n0": (), "n1": ("side",), "n2": ("side", "residual")}


def network_of(kind, **fields):
    return FusionNetwork(FrozenDict(emotion=4, sex=2), kind, NAMES, hidden=10, **fields)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def applied(model, variables, features, keys=None, train=False):
    """Return ((logits, taps), updated statistics)."""
    return model.apply(variables, features, train, keys, mutable=["batch_stats"])


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=(BATCH, width)).astype(np.float32) for name, width in WIDTHS.items()
    }


@pytest.fixture(scope="module")
def keys():
    return jax.vmap(jax.random.key)(jnp.arange(BATCH) + 100)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, features, random_variables):
    model = network_of(request.param)
    return model, random_variables(model, features)


def test_each_network_has_its_parts_and_a_head_for_every_target(network, features):
    model, variables = network
    parts = {f"{name}_{part}" for name in NAMES for part in PARTS[model.network]}
    assert set(variables["params"]) == {"fusion"} | parts
    assert set(variables["batch_stats"]["fusion"]) == {"norm", "scoring"}
    assert set(variables["params"]["fusion"]["scoring"]) == {"dense", "head"}
    heads = {
        "/".join(key.key for key in path[:-1])
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if "head" in jax.tree_util.keystr(path)
    }
    owners = ["fusion/scoring", *sorted(p for p in parts if not p.endswith("residual"))]
    assert heads == {f"{owner}/head/{target}" for owner in owners for target in ("emotion", "sex")}

    (logits, taps), _ = applied(model, variables, features)
    assert jax.tree.map(jnp.shape, logits) == {"emotion": (6, 4), "sex": (6, 2)}
    own_logits = {f"logits_{name}" for name in NAMES} if model.network != "n0" else set()
    assert set(taps) == {"features"} | {f"features_{name}" for name in NAMES} | own_logits
    for name in own_logits:
        assert jax.tree.map(jnp.shape, taps[name]) == {"emotion": (6, 4), "sex": (6, 2)}


def test_dense_layers_start_as_flaxs():
    model = FusionNetwork(6, "n2", ("face", "voice"), hidden=96)
    inputs = {name: jnp.zeros((1, 128)) for name in ("face", "voice")}
    params = jax.jit(model.init)(jax.random.key(0), inputs)["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, leaf = jax.tree_util.keystr(path), np.asarray(leaf)
        if path[-1].key == "bias":
            assert not leaf.any(), name
        else:
            deviation = leaf.shape[0] ** -0.5
            np.testing.assert_allclose(
                leaf.std(), deviation, rtol=4 / np.sqrt(2 * leaf.size), err_msg=name
            )
            # Two deviations of the normal before its tails are cut.
            assert np.abs(leaf).max() < 2.28 * deviation, name


def test_features_are_joined_in_the_order_of_the_field(network, features):
    model, variables = network
    (_, taps), _ = applied(model, variables, features)
    stats = variables["batch_stats"]["fusion"]["norm"]
    joined = np.concatenate([taps[f"features_{name}"] for name in NAMES], axis=1)
    expected = (joined - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    np.testing.assert_allclose(taps["features"], expected, rtol=1e-4, atol=1e-5)


def test_missing_modalities_leave_the_mean_of_the_others_opinions(network, features):
    model, variables = network
    fewer = {name: features[name] for name in ("voice", "text")}
    if model.network == "n0":
        with pytest.raises(ValueError, match="face missing, but network n0 cannot do without one"):
            applied(model, variables, fewer)
        return
    (_, whole), _ = applied(model, variables, features)
    (logits, taps), _ = applied(model, variables, fewer)
    assert set(taps) == {
        *("features", "features_voice", "features_text", "logits_voice", "logits_text")
    }
    assert taps["features"].shape == (6, 8)
    for target, found in logits.items():
        expected = (whole["logits_voice"][target] + whole["logits_text"][target]) / 2
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    (logits, _), _ = applied(model, variables, {"face": features["face"]})
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        logits,
        whole["logits_face"],
    )
    with pytest.raises(ValueError, match="face missing, but training needs all modalities"):
        applied(model, variables, fewer, train=True)


def test_features_of_nothing_known_are_refused(network, features):
    model, variables = network
    with pytest.raises(ValueError, match="features of no modality, expected"):
        applied(model, variables, {})
    with pytest.raises(ValueError, match=r"no modality \['touch'\] in this model; it has"):
        applied(model, variables, {**features, "touch": features["voice"]})


def test_statistics_move_in_training_save_those_of_frozen_scores(network, features):
    model, variables = network
    _, updated = applied(model, variables, features, train=True)
    for name, tree in updated["batch_stats"].items():
        old = variables["batch_stats"][name]
        changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), tree, old)
        moved = [change > 0 for change in jax.tree.leaves(changes)]
        assert not any(moved) if name.endswith("scoring") else all(moved), name


def test_dropped_modalities_are_drawn_per_clip_and_never_all():
    many = jax.vmap(jax.random.key)(jnp.arange(2000))
    kept = np.asarray(jax.jit(kept_modalities, static_argnums=(1, 2))(many, 0.4, 3))
    assert kept.any(axis=1).all()
    # Stays with .6; or, where all three would go (.4 ** 3), one time in three.
    np.testing.assert_allclose(kept.mean(axis=0), 0.6 + 0.4**3 / 3, atol=0.04)
    own = jax.jit(kept_modalities, static_argnums=(1, 2))(many[7:9], 0.4, 3)
    np.testing.assert_array_equal(own, kept[7:9])


def test_only_the_fusion_component_misses_a_dropped_modality(features, keys, random_variables):
    plain, model = network_of("n2"), network_of("n2", modality_dropout=0.5)
    variables = random_variables(plain, features)
    (logits, taps), _ = applied(model, variables, features, keys, train=True)
    (whole_logits, whole), _ = applied(plain, variables, features, train=True)
    kept = np.asarray(kept_modalities(keys, 0.5, 3))
    assert not kept.all()
    columns = np.repeat(kept, [WIDTHS[name] for name in NAMES], axis=1)
    expected = np.where(columns, whole.pop("features"), 0)
    np.testing.assert_allclose(taps.pop("features"), expected, rtol=1e-5, atol=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, taps, whole)
    assert np.abs(np.asarray(logits["sex"]) - whole_logits["sex"]).max() > 1e-3
    (evaluated, _), _ = applied(model, variables, features)
    (expected, _), _ = applied(plain, variables, features)
    jax.tree.map(close, evaluated, expected)
    with pytest.raises(ValueError, match="modality dropout needs typed PRNG keys of shape"):
        applied(model, variables, features, train=True)
