"""ResNets of torchvision and of Hugging Face become the same variables, or a line that says why."""

import jax
import numpy as np
import pytest

from aver_jax.models.resnet.resnet import ResNet
from aver_jax.models.weights.resnet import convert_resnet
from aver_jax.models.weights.torch_tensors import CheckpointError

WIDTH = 4
# torchvision's part -> Hugging Face's, inside a block.
INNER = {
    "conv1": "layer.0.convolution",
    "bn1": "layer.0.normalization",
    "conv2": "layer.1.convolution",
    "bn2": "layer.1.normalization",
    "downsample.0": "shortcut.convolution",
    "downsample.1": "shortcut.normalization",
}


def torchvision(depths=(2, 1), channels=3, dims=2):
    """A random state with torchvision's names."""
    rng = np.random.default_rng(0)
    state = {}

    def put(conv, norm, features, inputs, size):
        state[f"{conv}.weight"] = rng.normal(size=(features, inputs, *(size,) * dims))
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = rng.uniform(0.5, 1.5, features)
        state[f"{norm}.num_batches_tracked"] = np.array(7)

    put("conv1", "bn1", WIDTH, channels, 7)
    inputs = WIDTH
    for stage, depth in enumerate(depths, start=1):
        features = WIDTH * 2 ** (stage - 1)
        for block in range(depth):
            place = f"layer{stage}.{block}"
            put(f"{place}.conv1", f"{place}.bn1", features, inputs, 3)
            put(f"{place}.conv2", f"{place}.bn2", features, features, 3)
            if features != inputs:
                put(f"{place}.downsample.0", f"{place}.downsample.1", features, inputs, 1)
            inputs = features
    state["fc.weight"] = rng.normal(size=(10, inputs))
    state["fc.bias"] = rng.normal(size=10)
    return {name: value.astype(np.float32) for name, value in state.items()}


def hugging_face(state):
    """The state under the names of ResNetForImageClassification."""
    out = {}
    for name, value in state.items():
        if name.startswith("layer"):
            stage, block, rest = name.split(".", 2)
            inner = next(part for part in INNER if rest.startswith(part))
            rest = INNER[inner] + rest.removeprefix(inner)
            name = f"resnet.encoder.stages.{int(stage[5:]) - 1}.layers.{block}.{rest}"
        elif name.startswith("fc"):
            name = name.replace("fc", "classifier.1")
        else:
            name = name.replace("conv1", "resnet.embedder.embedder.convolution")
            name = name.replace("bn1", "resnet.embedder.embedder.normalization")
        out[name] = value
    return out


def wrapped(state):
    return {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}


@pytest.mark.parametrize("dims", [2, 3])
def test_every_variable_of_the_network_is_there(dims):
    converted = convert_resnet(torchvision(dims=dims))
    assert converted.fields == {
        "stage_sizes": (2, 1),
        "width": WIDTH,
        "stem": "conv7",
        "dims": dims,
    }
    x = jax.ShapeDtypeStruct((1, *(16,) * dims, 3), np.float32)
    expected = jax.eval_shape(ResNet(**converted.fields).init, jax.random.key(0), x)
    found = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), converted.variables)
    assert found == expected
    assert converted.notes == ("the classifier is dropped",)


def test_values_are_where_they_belong():
    state = torchvision()
    converted = convert_resnet(state).variables
    block = converted["params"]["layer2_0"]
    np.testing.assert_array_equal(
        block["downsample_conv"]["kernel"],
        state["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(block["bn2"]["scale"], state["layer2.0.bn2.weight"])
    statistics = converted["batch_stats"]["layer1_1"]["bn1"]
    np.testing.assert_array_equal(statistics["mean"], state["layer1.1.bn1.running_mean"])
    np.testing.assert_array_equal(statistics["var"], state["layer1.1.bn1.running_var"])


@pytest.mark.parametrize("disguise", [hugging_face, wrapped])
def test_other_names_and_wrappings_are_the_same_network(disguise):
    state = torchvision()
    found, expected = convert_resnet(disguise(state)), convert_resnet(state)
    assert found.fields == expected.fields
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)


def response(converted, x):
    """What the first layer gives."""
    kernel = converted.variables["params"]["conv1"]["kernel"]
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=numbers)


def test_one_channel_answers_as_three_equal_ones():
    x = np.random.default_rng(1).normal(size=(1, 9, 9, 1)).astype(np.float32)
    colours, one = convert_resnet(torchvision()), convert_resnet(torchvision(), channels=1)
    assert "summed over the 3 channels" in one.notes[1]
    expected = response(colours, np.repeat(x, 3, axis=-1))
    np.testing.assert_allclose(response(one, x), expected, rtol=1e-5, atol=1e-5)


def test_grey_in_colours_answers_as_one_channel():
    x = np.random.default_rng(1).normal(size=(1, 9, 9, 1)).astype(np.float32)
    state = torchvision(channels=1)
    colours = convert_resnet(state, channels=3)
    assert "shared out" in colours.notes[1]
    expected = response(convert_resnet(state), x)
    np.testing.assert_allclose(
        response(colours, np.repeat(x, 3, axis=-1)), expected, rtol=1e-5, atol=1e-5
    )


def without(name):
    def change(state):
        del state[name]

    return change


def put(name, value):
    def change(state):
        state[name] = np.asarray(value, np.float32)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layer1.0.bn1.running_var"), "missing: layer1.0.bn1.running_var"),
        (without("conv1.weight"), "no ResNet: expected conv1.weight"),
        (dict.clear, "the checkpoint is empty"),
        (put("layer1.0.extra.weight", [1.0]), "unexpected: layer1.0.extra.weight"),
        (
            put("layer2.0.conv2.weight", np.zeros((8, 8, 1, 1))),
            r"layer2.0.conv2.weight \(8, 8, 1, 1\) instead of \(8, 8, 3, 3\)",
        ),
        (put("bn1.bias", [np.nan] * WIDTH), "not finite: bn1.bias"),
        (put("layer1.0.conv3.weight", [1.0]), "three convolutions, as in ResNet-50"),
        (put("conv1.weight", np.zeros((4, 3, 3, 3))), r"expected \[width, channels, 7, 7\]"),
        (put("layer4.0.conv1.weight", [1.0]), r"found stages \[1, 2, 4\]"),
    ],
)
def test_what_is_no_such_network_is_named(change, message):
    state = torchvision()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        convert_resnet(state)


def test_four_channels_do_not_become_three():
    with pytest.raises(CheckpointError, match="takes 4 channels, expected 3 or 1"):
        convert_resnet(torchvision(channels=4), channels=3)
