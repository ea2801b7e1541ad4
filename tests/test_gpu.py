"""On an accelerator: the same numbers as on the CPU, in float32, and sane ones in bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax.frontend import evaluation_inputs
from aver_jax.models import build_model, init_variables
from aver_jax.relevance import explain

pytestmark = pytest.mark.gpu

FIELDS = {
    "name": "timesformer",
    "width": 96,
    "depth": 2,
    "num_heads": 3,
    "patch_size": 16,
    "image_size": 64,
    "num_frames": 8,
}


FUSION = {
    "name": "mrpn",
    "network": "n2",
    "stage_sizes": (1, 1),
    "width": 16,
    "features": 32,
    "scoring_hidden": 32,
}


@pytest.fixture(scope="module")
def accelerator():
    if jax.default_backend() == "cpu":
        pytest.skip("no accelerator; `tools/gpu_check.sh works` runs these on a GPU host")
    return jax.devices()[0]


@pytest.fixture(scope="module")
def case():
    """Variables with every parameter noisy, and frames, on the host."""
    model = build_model(FIELDS, num_classes=6)
    with jax.default_device(jax.devices("cpu")[0]):
        variables = init_variables(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: np.asarray(x) + 0.05 * rng.standard_normal(x.shape, np.float32), variables
    )
    return model, variables, rng.standard_normal((4, 8, 64, 64, 3), np.float32)


@pytest.fixture(scope="module")
def fusion_case():
    """Variables of a small N2 with every parameter noisy, and its inputs, on the host."""
    model = build_model(FUSION, num_classes=6)
    with jax.default_device(jax.devices("cpu")[0]):
        variables = init_variables(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        # Variances stay positive.
        lambda x: np.asarray(x) + np.abs(0.05 * rng.standard_normal(x.shape, np.float32)),
        variables,
    )
    inputs = {
        "frames": rng.standard_normal((16, 3, 48, 48, 3), np.float32),
        "audio": rng.standard_normal((16, 4, 65, 50), np.float32),
        "audio_segments": np.resize([4, 1, 3, 2], 16).astype(np.int32),
    }
    return model, variables, inputs


def on(device, function, *arguments):
    return jax.device_get(jax.jit(function)(*jax.device_put(arguments, device)))


def assert_close(one, other, tolerance):
    def check(a, b):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())

    jax.tree.map(check, one, other)


@pytest.mark.parametrize("capture", [(), ("attention_time", "attention_space")])
def test_logits_and_gradients_are_those_of_the_cpu(accelerator, case, capture):
    model, variables, frames = case

    def loss(variables, frames):
        logits, _ = model.apply(variables, {"frames": frames}, capture=capture)
        return (logits**2).sum(), logits

    with jax.default_matmul_precision("highest"):
        gradient = jax.grad(loss, has_aux=True)
        here = on(accelerator, gradient, variables, frames)
        there = on(jax.devices("cpu")[0], gradient, variables, frames)
    assert_close(here, there, 1e-4)


@pytest.mark.parametrize("kernel", ["xla", "cudnn"])
def test_bfloat16_agrees_to_its_precision(accelerator, case, kernel):
    _, variables, frames = case
    model = build_model({**FIELDS, "dtype": "bfloat16", "kernel": kernel}, num_classes=6)
    exact = build_model(FIELDS, num_classes=6)
    logits = [
        on(accelerator, lambda v, x, m=m: m.apply(v, {"frames": x})[0], variables, frames)
        for m in (model, exact)
    ]
    assert_close(logits[0], logits[1], 0.05)


def test_gradients_through_cudnn_are_near_those_of_xla(accelerator, case):
    _, variables, frames = case

    def gradient(kernel):
        model = build_model({**FIELDS, "dtype": "bfloat16", "kernel": kernel}, num_classes=6)

        def loss(variables):
            return (model.apply(variables, {"frames": frames})[0] ** 2).sum()

        return on(accelerator, jax.grad(loss), variables)

    assert_close(gradient("cudnn"), gradient("xla"), 0.05)


@pytest.mark.parametrize("method", ["tibav", "rollout_grad", "rollout_min"])
def test_relevance_is_that_of_the_cpu(accelerator, case, method):
    model, variables, frames = case
    maps = []
    for device in (accelerator, jax.devices("cpu")[0]):
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            arguments = jax.device_put((variables, {"frames": frames}), device)
            maps.append(np.asarray(explain(model, *arguments, method=method, target=1).maps))
    assert_close(maps[0], maps[1], 1e-3)


@pytest.mark.parametrize("fields", [{}, {"scale": "db", "bands": 64, "hop": 160, "segment": 96}])
def test_segments_of_sound_are_those_of_the_cpu(accelerator, fields):
    # A chirp over noise: every band has something in it.
    seconds = np.arange(48_000) / 16_000
    sound = 8000 * np.sin(2 * np.pi * (100 * seconds + 1000 * seconds**2))
    sound = sound + np.random.default_rng(0).normal(0, 500, sound.shape)
    batch = {
        "audio": np.stack([sound, sound[::-1]]).astype(np.int16),
        "audio_length": np.array([48_000, 20_000], np.int32),
    }
    config = ConfigDict({"frontend": {"spectrogram": fields}})
    devices = (accelerator, jax.devices("cpu")[0])
    here, there = (on(d, functools.partial(evaluation_inputs, config), batch) for d in devices)
    np.testing.assert_array_equal(here["audio_segments"], there["audio_segments"])
    assert_close(here["audio"], there["audio"], 1e-4)


def training_step(model, variables, inputs):
    """Return logits, gradients of the summed loss, and new batch statistics."""
    labels = jnp.arange(16) % 6

    def loss(params):
        (logits, taps), updated = model.apply(
            {**variables, "params": params}, inputs, train=True, mutable=["batch_stats"]
        )
        scores = [logits, *(taps[name] for name in model.auxiliary_logits)]
        total = -sum(jax.nn.log_softmax(s)[jnp.arange(16), labels].mean() for s in scores)
        return total, (logits, updated)

    gradients, (logits, updated) = jax.grad(loss, has_aux=True)(variables["params"])
    return {"logits": logits, "gradients": gradients, "statistics": updated}


def test_a_step_of_fusion_is_that_of_the_cpu(accelerator, fusion_case):
    model, *arguments = fusion_case
    step = functools.partial(training_step, model)
    with jax.default_matmul_precision("highest"):
        here, there = (on(d, step, *arguments) for d in (accelerator, jax.devices("cpu")[0]))
    assert_close(here, there, 1e-4)


def test_a_step_of_fusion_in_bfloat16_is_finite_and_near(accelerator, fusion_case):
    exact, *arguments = fusion_case
    model = build_model({**FUSION, "dtype": "bfloat16"}, num_classes=6)
    found = on(accelerator, functools.partial(training_step, model), *arguments)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    logits, _ = on(accelerator, exact.apply, *arguments)
    rough, _ = on(accelerator, model.apply, *arguments)
    assert_close(rough, logits, 0.05)
