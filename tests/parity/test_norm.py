"""Batch normalisation against torch.nn.BatchNorm1d and 2d."""

import functools

import jax
import numpy as np
import pytest
import torch

from aver_jax.models.norm import BatchNorm

pytestmark = pytest.mark.parity

CHANNELS = 6
SHAPES = {"1d": (10, CHANNELS), "2d": (4, 5, 3, CHANNELS)}


def channels_last(tensor):
    """The numpy array of a tensor [N, C, ...] as [N, ..., C]."""
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


@pytest.fixture(params=SHAPES)
def case(request):
    """Torch's module with random parameters and statistics, our variables, and a batch."""
    rng = np.random.default_rng(0)
    module = {"1d": torch.nn.BatchNorm1d, "2d": torch.nn.BatchNorm2d}[request.param](CHANNELS)
    values = {
        name: torch.tensor(rng.uniform(0.5, 2, CHANNELS), dtype=torch.float32)
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    module.load_state_dict(values, strict=False)
    # Copies: torch moves its statistics in place.
    ours = {name: value.numpy().copy() for name, value in values.items()}
    variables = {
        "params": {"scale": ours["weight"], "bias": ours["bias"]},
        "batch_stats": {"mean": ours["running_mean"], "var": ours["running_var"]},
    }
    batches = (3 + 2 * rng.normal(size=(4, *SHAPES[request.param]))).astype(np.float32)
    return module, variables, batches, rng


def to_torch(x):
    return torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)


def test_training_outputs_gradients_and_running_statistics_are_torchs(case):
    module, variables, batches, rng = case
    module.train()

    @jax.jit
    def run(params, stats, x, cotangent):
        def normalised(params, x):
            return BatchNorm().apply(
                {"params": params, "batch_stats": stats}, x, train=True, mutable="batch_stats"
            )

        y, pullback, updated = jax.vjp(normalised, params, x, has_aux=True)
        return y, updated["batch_stats"], *pullback(cotangent)

    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    stats = variables["batch_stats"]
    for x in batches:
        cotangent = rng.normal(size=x.shape).astype(np.float32)
        y, stats, grads, grad_x = run(variables["params"], stats, x, cotangent)
        theirs_x = to_torch(x)
        theirs = module(theirs_x)
        module.zero_grad()
        theirs.backward(to_torch(cotangent).detach())
        close(y, channels_last(theirs))
        close(grad_x, channels_last(theirs_x.grad))
        close(grads["scale"], module.weight.grad)
        close(grads["bias"], module.bias.grad)
        # After every one of several steps, so that the decay is seen too.
        np.testing.assert_allclose(stats["mean"], module.running_mean, rtol=1e-6)
        np.testing.assert_allclose(stats["var"], module.running_var, rtol=1e-6)


def test_evaluation_outputs_and_gradients_are_torchs(case):
    module, variables, batches, rng = case
    module.eval()
    x = batches[0]
    cotangent = rng.normal(size=x.shape).astype(np.float32)
    y, pullback = jax.vjp(functools.partial(BatchNorm().apply, variables, train=False), x)
    theirs_x = to_torch(x)
    theirs = module(theirs_x)
    theirs.backward(to_torch(cotangent).detach())
    np.testing.assert_allclose(y, channels_last(theirs), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        pullback(cotangent)[0], channels_last(theirs_x.grad), rtol=1e-5, atol=1e-6
    )


def test_feature_norm_is_batch_norm_without_affine_parameters(case):
    _, _, batches, _ = case
    x = batches[0][:, 0, 0] if batches[0].ndim > 2 else batches[0]
    module = torch.nn.BatchNorm1d(CHANNELS, affine=False)
    norm = BatchNorm(use_scale=False, use_bias=False)
    stats = norm.init(jax.random.key(0), x, train=False)
    y, updated = norm.apply(stats, x, train=True, mutable="batch_stats")
    np.testing.assert_allclose(y, module(torch.tensor(x)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], module.running_var, rtol=1e-6)
