"""On an accelerator: the same numbers as on the CPU, in float32, and sane ones in bfloat16."""

import jax
import numpy as np
import pytest

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


@pytest.fixture(scope="module")
def accelerator():
    if jax.default_backend() == "cpu":
        pytest.skip("no accelerator; tools/gpu_check.sh runs these on a GPU host")
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


def test_bfloat16_agrees_to_its_precision(accelerator, case):
    _, variables, frames = case
    model = build_model({**FIELDS, "dtype": "bfloat16"}, num_classes=6)
    exact = build_model(FIELDS, num_classes=6)
    logits = [
        on(accelerator, lambda v, x, m=m: m.apply(v, {"frames": x})[0], variables, frames)
        for m in (model, exact)
    ]
    assert_close(logits[0], logits[1], 0.05)


@pytest.mark.parametrize("method", ["tibav", "rollout_grad", "rollout_min"])
def test_relevance_is_that_of_the_cpu(accelerator, case, method):
    model, variables, frames = case
    maps = []
    for device in (accelerator, jax.devices("cpu")[0]):
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            arguments = jax.device_put((variables, {"frames": frames}), device)
            maps.append(np.asarray(explain(model, *arguments, method=method, target=1).maps))
    assert_close(maps[0], maps[1], 1e-3)
