"""MRPN and its kin as whole models: taps, what trains, a missing modality, several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from aver_jax.models.fusion.fusion import NETWORKS
from aver_jax.models.fusion.mrpn import Mrpn
from aver_jax.runtime.data_parallel import AXIS, make_mesh

BATCH = 8


def mrpn(kind, **fields):
    # Small ones compile fast.
    small = {"stage_sizes": (1,), "width": 8, "stem": "conv3", "features": 8, "scoring_hidden": 12}
    return Mrpn(5, kind, **{**small, "modality_dropout": 0.4, **fields})


@functools.partial(jax.jit, static_argnums=0)
def evaluated(model, variables, inputs):
    return model.apply(variables, inputs)


def loss_and_gradients(model, variables, inputs, labels, keys):
    """Return ((the summed loss of eq. 28, updated statistics), gradients of the parameters)."""

    def loss(params):
        (logits, taps), updated = model.apply(
            {**variables, "params": params}, inputs, train=True, keys=keys, mutable=["batch_stats"]
        )
        scores = [logits, *(taps[name] for name in model.auxiliary_logits)]
        chosen = [
            jnp.take_along_axis(jax.nn.log_softmax(s), labels[:, None], axis=1) for s in scores
        ]
        return -sum(map(jnp.mean, chosen)), updated["batch_stats"]

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
def batch(inputs):
    keys = jax.vmap(jax.random.key)(jnp.arange(BATCH) + 100)
    return inputs, np.arange(BATCH, dtype=np.int32) % 5, keys


@pytest.fixture(scope="module")
def n2(random_variables):
    model = mrpn("n2")
    return model, random_variables(model)


@pytest.fixture(scope="module")
def trained_n2(n2, batch):
    return jax.jit(loss_and_gradients, static_argnums=0)(*n2, *batch)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("aggregator", ["lstm", "bilstm", "transformer", "mean"])
def test_every_network_and_aggregator_gives_its_taps(kind, aggregator, inputs, random_variables):
    model = mrpn(kind, aggregator=aggregator)
    variables = random_variables(model)
    logits, taps = jax.eval_shape(
        lambda: model.apply(variables, inputs, capture=("maps_video", "maps_audio"))
    )
    expected = {
        "features": (8, 16),
        "features_video": (8, 8),
        "features_audio": (8, 8),
        "maps_video": (8, 2, 4, 4, 8),
        "maps_audio": (8, 3, 5, 4, 8),
    }
    if kind != "n0":
        expected |= {"logits_video": (8, 5), "logits_audio": (8, 5)}
    assert {tap: x.shape for tap, x in taps.items()} == expected
    assert logits.shape == (8, 5)
    assert {x.dtype for x in (logits, *taps.values())} == {jnp.dtype("float32")}
    auxiliary = ("logits_video", "logits_audio") if kind in ("n1", "n2") else ()
    assert model.auxiliary_logits == auxiliary


def test_parts_of_the_fusion_stand_beside_the_branches(n2):
    _, variables = n2
    assert set(variables["params"]) == {
        *("video", "video_residual", "video_side"),
        *("audio", "audio_residual", "audio_side"),
        "fusion",
    }
    assert set(variables["params"]["video"]) == {"cnn", "aggregator"}
    assert set(variables["batch_stats"]["video"]) == {"cnn", "norm"}
    assert set(variables["params"]["fusion"]) == {"scoring"}
    assert set(variables["batch_stats"]["fusion"]) == {"norm", "scoring"}


def test_a_missing_modality_leaves_the_other_branch_its_opinion(n2, inputs):
    model, variables = n2
    _, whole = evaluated(model, variables, inputs)
    silent = {"frames": inputs["frames"]}
    unseen = {name: x for name, x in inputs.items() if name != "frames"}
    for name, part in (("video", silent), ("audio", unseen)):
        logits, taps = evaluated(model, variables, part)
        np.testing.assert_allclose(logits, whole[f"logits_{name}"], rtol=1e-5, atol=1e-6)
        assert set(taps) == {"features", f"features_{name}", f"logits_{name}"}


def test_bfloat16_computes_nearly_the_same_and_returns_float32(n2, inputs):
    model, variables = n2
    exact, _ = evaluated(model, variables, inputs)
    rough, taps = evaluated(mrpn("n2", dtype=jnp.bfloat16), variables, inputs)
    assert {x.dtype for x in (rough, *taps.values())} == {jnp.dtype("float32")}
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())


def test_in_n2_every_parameter_learns(n2, trained_n2):
    _, variables = n2
    (_, stats), grads = trained_n2
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(gradient).max() > 1e-5, jax.tree_util.keystr(path)
    for name, old in variables["batch_stats"].items():
        changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), stats[name], old)
        assert min(jax.tree.leaves(changes)) > 0, name


def test_late_fusion_leaves_the_branches_as_they_are(random_variables, batch):
    model = mrpn("late")
    variables = random_variables(model)
    (_, stats), grads = jax.jit(loss_and_gradients, static_argnums=0)(model, variables, *batch)
    for name in set(variables["params"]) - {"fusion"}:
        assert not any(np.any(x) for x in jax.tree.leaves(grads[name])), name
        jax.tree.map(np.testing.assert_array_equal, stats[name], variables["batch_stats"][name])
    assert max(np.abs(x).max() for x in jax.tree.leaves(grads["fusion"])) > 1e-4


def test_relevance_reaches_the_branches_of_late_fusion(random_variables, inputs):
    model = mrpn("late")
    variables = random_variables(model)

    @jax.jit
    def gradient(probe):
        def logit(probe):
            logits, _ = model.apply(variables, inputs, probes={"maps_video": probe})
            return logits[:, 2].sum()

        return jax.grad(logit)(probe)

    found = np.abs(gradient(jnp.zeros((8, 2, 4, 4, 8))))
    assert (found.max(axis=(1, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize("mapping", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
def test_four_devices_compute_what_one_does(mapping, n2, batch, trained_n2):
    # Devices differ in the number of valid segments, one clip has none, and modalities drop by
    # the clip's own key.
    model, variables = n2

    def of_device(variables, *batch):
        found = loss_and_gradients(model.with_axis(AXIS), variables, *batch)
        return jax.lax.pmean(found, AXIS)

    if mapping == "shard_map":
        specs = (P(), *[P(AXIS)] * 3)
        mapped = jax.shard_map(
            of_device, mesh=make_mesh(4), in_specs=specs, out_specs=P(), check_vma=False
        )
        found = jax.jit(mapped)(variables, *batch)
    else:
        run = jax.pmap(of_device, AXIS, in_axes=(None, 0, 0, 0), out_axes=None)
        found = run(variables, *jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch))
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
    jax.tree.map(close, found, trained_n2)


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


def test_taps_and_modalities_that_are_not_there_are_refused(n2, inputs, random_variables):
    model, variables = n2
    silent = {"frames": inputs["frames"]}
    with pytest.raises(ValueError, match=r"no tap \['maps_audio'\] with these inputs; .*maps_vid"):
        model.apply(variables, silent, capture=("maps_audio",))
    model = mrpn("n0")
    with pytest.raises(ValueError, match="audio missing, but network n0 cannot do without one"):
        evaluated(model, random_variables(model), silent)
