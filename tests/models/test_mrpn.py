"""MRPN and its kin: heads, missing modalities, modality dropout, late fusion, several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from aver_jax import parallel
from aver_jax.models import auxiliary_logits, with_axis
from aver_jax.models.fusion import NETWORKS, FusionNetwork, kept_modalities
from aver_jax.models.mrpn import Mrpn

FIELDS = {
    "stage_sizes": (1, 1),
    "width": 4,
    "stem": "conv3",
    "features": 8,
    "scoring_hidden": 12,
}
BATCH = 8


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "capture"))
def applied(model, variables, inputs, keys=None, train=False, capture=()):
    """Return ((logits, taps), updated statistics)."""
    return model.apply(
        variables, inputs, train=train, keys=keys, capture=capture, mutable=["batch_stats"]
    )


def with_cross_entropies(model, variables, inputs, labels, keys):
    """Return (summed loss, updated statistics) of training, as eq. 28 has it."""

    (logits, taps), updated = model.apply(
        variables, inputs, train=True, keys=keys, mutable=["batch_stats"]
    )

    def cross_entropy(scores):
        return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1).mean()

    loss = sum(map(cross_entropy, [logits, *(taps[name] for name in auxiliary_logits(model))]))
    return loss, updated["batch_stats"]


@functools.partial(jax.jit, static_argnums=0)
def trained(model, variables, inputs, labels, keys):
    """Return ((loss, statistics), gradients of the parameters)."""

    def loss(params):
        everything = {**variables, "params": params}
        return with_cross_entropies(model, everything, inputs, labels, keys)

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return {
        "frames": rng.normal(size=(BATCH, 2, 8, 8, 3)).astype(np.float32),
        "audio": rng.normal(size=(BATCH, 3, 9, 8)).astype(np.float32),
        "audio_segments": np.array([3, 2, 1, 3, 0, 2, 3, 1], np.int32),
    }


@pytest.fixture(scope="module")
def labels():
    return np.arange(BATCH, dtype=np.int32) % 5


@pytest.fixture(scope="module")
def keys():
    return jax.vmap(jax.random.key)(jnp.arange(BATCH) + 100)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, random_variables):
    model = Mrpn(5, request.param, modality_dropout=0.3, **FIELDS)
    return model, random_variables(model)


PARTS = {
    "late": {"video_scoring", "audio_scoring"},
    "n0": set(),
    "n1": {"video_side", "audio_side"},
    "n2": {"video_side", "audio_side", "video_residual", "audio_residual"},
}


def test_every_network_has_its_parts_and_taps(network, inputs):
    model, variables = network
    name = model.network
    assert set(variables["params"]) == {"video", "audio", "fusion"} | PARTS[name]
    assert set(variables["params"]["fusion"]) == {"dense", "head"}
    assert set(variables["batch_stats"]["fusion"]) == {"norm", "scoring_norm"}
    capture = ("maps_video", "maps_audio")
    (logits, taps), _ = applied(model, variables, inputs, capture=capture)
    shapes = {
        "features": (8, 16),
        "features_video": (8, 8),
        "features_audio": (8, 8),
        "maps_video": (8, 2, 2, 2, 8),
        "maps_audio": (8, 3, 3, 2, 8),
    }
    if name != "n0":
        shapes |= {"logits_video": (8, 5), "logits_audio": (8, 5)}
    assert {tap: x.shape for tap, x in taps.items()} == shapes
    assert logits.shape == (8, 5)
    assert {x.dtype for x in jax.tree.leaves((logits, taps))} == {jnp.dtype("float32")}
    expected = ("logits_video", "logits_audio") if name in ("n1", "n2") else ()
    assert auxiliary_logits(model) == expected


def test_a_missing_modality_leaves_the_others_opinion(network, inputs):
    model, variables = network
    silent = {"frames": inputs["frames"]}
    unseen = {k: v for k, v in inputs.items() if k != "frames"}
    if model.network == "n0":
        with pytest.raises(ValueError, match="audio missing, but network n0 cannot"):
            applied(model, variables, silent)
        return
    (_, whole), _ = applied(model, variables, inputs)
    for name, part in (("video", silent), ("audio", unseen)):
        (logits, taps), _ = applied(model, variables, part)
        np.testing.assert_allclose(logits, whole[f"logits_{name}"], rtol=1e-5, atol=1e-6)
        assert set(taps) == {"features", f"features_{name}", f"logits_{name}"}
    with pytest.raises(ValueError, match="audio missing, but training needs all modalities"):
        applied(model, variables, silent, train=True)
    with pytest.raises(ValueError, match="features of no modality"):
        applied(model, variables, {})


def test_every_parameter_learns_save_what_late_fusion_freezes(network, inputs, labels, keys):
    model, variables = network
    (_, stats), grads = trained(model, variables, inputs, labels, keys)
    moving = {"fusion"} if model.network == "late" else set(variables["params"])
    for name, tree in grads.items():
        largest = [float(np.abs(x).max()) for x in jax.tree.leaves(tree)]
        # A bias before batch statistics has no gradient but rounding.
        assert (max(largest) > 1e-4) == (name in moving), name
        if name not in moving:
            assert not any(largest)
    for name, tree in stats.items():
        changes = jax.tree.map(
            lambda a, b: float(np.abs(a - b).max()), tree, variables["batch_stats"][name]
        )
        if name in moving:
            assert min(jax.tree.leaves(changes)) > 0, name
        else:
            assert not any(jax.tree.leaves(changes)), name


def test_relevance_reaches_frozen_branches(random_variables, inputs):
    model = Mrpn(5, "late", **FIELDS)
    variables = random_variables(model)

    @jax.jit
    def gradient(probe):
        return jax.grad(
            lambda probe: model.apply(variables, inputs, probes={"maps_video": probe})[0][
                :, 2
            ].sum()
        )(probe)

    found = np.abs(gradient(jnp.zeros((8, 2, 2, 2, 8))))
    assert (found.max(axis=(1, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize("mapping", ["shard_map", "pmap"])
@pytest.mark.parametrize("kind", ["n2", "late"])
def test_four_devices_compute_what_one_does(kind, mapping, random_variables, inputs, labels, keys):
    # The clips of a device differ in their number of valid segments, one device's second clip has
    # none, and modalities drop by the clip's own key.
    model = Mrpn(5, kind, modality_dropout=0.4, **FIELDS)
    variables = random_variables(model)
    (loss, stats), grads = trained(model, variables, inputs, labels, keys)

    def of_device(variables, inputs, labels, keys):
        # Gradients of the local mean, then averaged.
        return jax.lax.pmean(
            trained.__wrapped__(with_axis(model, parallel.AXIS), variables, inputs, labels, keys),
            parallel.AXIS,
        )

    if mapping == "shard_map":
        mesh = parallel.make_mesh(4)
        split = (P(), *[P(parallel.AXIS)] * 3)
        run = jax.jit(
            jax.shard_map(of_device, mesh=mesh, in_specs=split, out_specs=P(), check_vma=False)
        )
        found = run(variables, inputs, labels, keys)
    else:
        run = jax.pmap(of_device, parallel.AXIS, in_axes=(None, 0, 0, 0), out_axes=None)
        parts = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), (inputs, labels, keys))
        found = run(variables, *parts)
    (found_loss, found_stats), found_grads = found
    np.testing.assert_allclose(found_loss, loss, rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
    jax.tree.map(close, found_stats, stats)
    jax.tree.map(close, found_grads, grads)


def test_dropped_modalities_are_drawn_per_clip_and_never_all(keys):
    many = jax.vmap(jax.random.key)(jnp.arange(2000))
    kept = np.asarray(jax.jit(kept_modalities, static_argnums=(1, 2))(many, 0.4, 3))
    assert kept.any(axis=1).all()
    # Stays with .6; or where all three would go (.4 ** 3), one in three times.
    np.testing.assert_allclose(kept.mean(axis=0), 0.6 + 0.4**3 / 3, atol=0.04)
    own = jax.jit(kept_modalities, static_argnums=(1, 2))(many[7:9], 0.4, 3)
    np.testing.assert_array_equal(own, kept[7:9])


def test_only_the_fusion_component_misses_a_dropped_modality(random_variables, inputs, keys):
    fields = {**FIELDS, "modality_dropout": 0.6}
    model, plain = Mrpn(5, "n2", **fields), Mrpn(5, "n2", **FIELDS)
    variables = random_variables(model)
    (_, taps), _ = applied(model, variables, inputs, keys, train=True)
    (_, whole), _ = applied(plain, variables, inputs, train=True)
    kept = np.repeat(kept_modalities(keys, 0.6, 2), 8, axis=1)
    assert not kept.all()
    np.testing.assert_allclose(
        taps["features"], np.where(kept, whole["features"], 0), rtol=1e-5, atol=1e-6
    )
    for name in ("logits_video", "logits_audio"):
        np.testing.assert_allclose(taps[name], whole[name], rtol=1e-5, atol=1e-6)
    (_, evaluated), _ = applied(model, variables, inputs)
    assert (np.abs(evaluated["features"]).max(axis=1) > 0).all()
    with pytest.raises(ValueError, match="modality dropout needs typed PRNG keys of shape"):
        applied(model, variables, inputs, train=True)


@pytest.mark.parametrize("kind", NETWORKS)
def test_fusion_takes_any_modalities_and_targets(kind):
    model = FusionNetwork({"emotion": 6, "sex": 2}, kind, ("voice", "face", "text"), hidden=10)
    rng = np.random.default_rng(0)
    features = {
        name: rng.normal(size=(4, width)).astype(np.float32)
        for name, width in {"text": 3, "voice": 5, "face": 7}.items()
    }
    (logits, taps), variables = jax.jit(model.init_with_output)(jax.random.key(0), features)
    assert {k: v.shape for k, v in logits.items()} == {"emotion": (4, 6), "sex": (4, 2)}
    assert variables["params"]["fusion"]["head"]["sex"]["kernel"].shape == (10, 2)
    assert taps["features"].shape == (4, 15)
    # In the order of the field, whatever that of the mapping.
    np.testing.assert_allclose(taps["features"][:, :5], taps["features_voice"], rtol=1e-4)
    if kind == "n0":
        return
    assert taps["logits_text"]["emotion"].shape == (4, 6)
    del features["face"]
    logits, fewer = model.apply(variables, features)
    assert "logits_face" not in fewer
    expected = (taps["logits_voice"]["sex"] + taps["logits_text"]["sex"]) / 2
    np.testing.assert_allclose(logits["sex"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network": "n3"}, "network is 'n3', expected one of"),
        ({"modalities": ("video",)}, "expected two or more different ones"),
        ({"modalities": ("video", "video")}, "expected two or more different ones"),
        ({"modalities": ("video", "text")}, r"no modality \['text'\]; there are"),
        ({"modality_dropout": 1.0}, "modality_dropout is 1.0"),
        ({"scoring_hidden": 0}, "scoring_hidden is 0"),
        ({"aggregator": "gru"}, "aggregator is 'gru'"),
    ],
)
def test_fields_that_describe_no_model_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Mrpn(6, **fields)


def test_taps_of_what_is_not_there_are_refused(random_variables, inputs):
    model = Mrpn(5, "n1", **FIELDS)
    variables = random_variables(model)
    with pytest.raises(ValueError, match=r"no tap \['maps_audio'\] with these inputs; .*maps_vid"):
        applied(model, variables, {"frames": inputs["frames"]}, capture=("maps_audio",))
