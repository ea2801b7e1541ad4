"""ResNet-LSTM: the tree it shares with MRPN, its taps, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.fusion.mrpn import Mrpn
from aver_jax.models.resnet.resnet_lstm import ResNetLstm

FIELDS = {
    "stage_sizes": (1,),
    "width": 8,
    "stem": "conv3",
    "features": 8,
    "scoring_hidden": 12,
}


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return {
        "frames": rng.normal(size=(3, 2, 12, 16, 3)).astype(np.float32),
        "audio": rng.normal(size=(3, 4, 17, 10)).astype(np.float32),
        "audio_segments": np.array([4, 2, 0], np.int32),
    }


@pytest.fixture(scope="module", params=["video", "audio"])
def unimodal(request, inputs, random_variables):
    model = ResNetLstm(5, modality=request.param, **FIELDS)
    return model, random_variables(model), {k: inputs[k] for k in model.input_shapes(1)}


def test_the_tree_is_that_of_the_modality_in_late_fusion(unimodal, random_variables):
    model, variables, _ = unimodal
    whole = random_variables(Mrpn(5, "late", **FIELDS))
    expected = {model.modality, f"{model.modality}_scoring"}
    for collection, tree in variables.items():
        assert set(tree) == expected
        part = {name: whole[collection][name] for name in expected}
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, part)
    assert set(variables["params"][f"{model.modality}_scoring"]) == {"dense", "head"}


def test_scores_are_read_from_the_features(unimodal):
    model, variables, inputs = unimodal
    maps = f"maps_{model.modality}"
    logits, taps = jax.jit(lambda v, x: model.apply(v, x, capture=(maps,)))(variables, inputs)
    assert logits.shape == (3, 5)
    assert set(taps) == {"features", maps}
    steps = 2 if model.modality == "video" else 4
    assert taps[maps].shape[:2] == (3, steps)
    assert {x.dtype for x in jax.tree.leaves((logits, taps))} == {jnp.dtype("float32")}

    name = f"{model.modality}_scoring"
    params, stats = variables["params"][name], variables["batch_stats"][name]["norm"]
    hidden = taps["features"] @ params["dense"]["kernel"] + params["dense"]["bias"][None]
    hidden = (np.maximum(hidden, 0) - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    expected = hidden @ params["head"]["kernel"] + params["head"]["bias"][None]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_late_fusion_finds_the_scores_of_the_run_it_was_made_from(
    unimodal, inputs, random_variables
):
    model, variables, own = unimodal
    late = Mrpn(5, "late", **FIELDS)
    whole = random_variables(late)
    whole = {name: {**tree, **variables[name]} for name, tree in whole.items()}
    expected, _ = jax.jit(model.apply)(variables, own)
    _, taps = jax.jit(late.apply)(whole, inputs)
    found = taps[f"logits_{model.modality}"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_several_targets_have_a_head_each(random_variables, inputs):
    model = ResNetLstm({"emotion": 6, "sex": 2}, modality="audio", **FIELDS)
    variables = random_variables(model)
    logits, _ = jax.eval_shape(model.apply, variables, inputs)
    assert {name: x.shape for name, x in logits.items()} == {"emotion": (3, 6), "sex": (3, 2)}
    head = variables["params"]["audio_scoring"]["head"]
    assert head["sex"]["kernel"].shape == (12, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modality": "touch"}, "modality is 'touch', expected one of"),
        ({"modality": "audio", "cnn": "3d"}, "segments of sound are images"),
        ({"cnn": "4d"}, "cnn is '4d', expected one of"),
        ({"cnn": "3d", "features": 100}, "a 3d cnn gives .* 512 wide; set features=512"),
        ({"aggregator": "mean", "width": 32}, "a mean over steps gives .* set features=256"),
        ({"stem": "conv5"}, "stem is 'conv5', expected one of"),
        ({"stage_sizes": ()}, r"stage_sizes is \(\)"),
        ({"stage_sizes": (2, 0)}, r"stage_sizes is \(2, 0\)"),
        ({"width": 0}, "width is 0"),
        ({"aggregator": "gru"}, "aggregator is 'gru'"),
        ({"aggregator": "bilstm", "features": 15}, "features is 15"),
        ({"scoring_hidden": 0}, "scoring_hidden is 0"),
    ],
)
def test_fields_that_describe_no_model_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ResNetLstm(6, **fields)


def test_inputs_and_taps_that_do_not_fit_are_refused(unimodal, inputs):
    model, variables, own = unimodal
    with pytest.raises(ValueError, match=r"no tap \['block'\] in this model; it has \['maps_"):
        jax.eval_shape(lambda: model.apply(variables, own, capture=("block",)))
    other = {k: v for k, v in inputs.items() if k not in own}
    with pytest.raises(ValueError, match=f"the {model.modality} branch needs inputs"):
        jax.eval_shape(lambda: model.apply(variables, other))
