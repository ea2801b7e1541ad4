"""Relevance from the gradient of the input: formulas, completeness, independence of clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models import build_model, init_variables
from aver_jax.relevance import explain, input_gradient
from aver_jax.relevance.explain import METHODS, passes_of
from aver_jax.relevance.input_gradient import attribution, relevance

FIELDS = {
    "name": "timesformer", "image_size": 16, "num_frames": 3, "patch_size": 8, "width": 24,
    "depth": 2, "num_heads": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def case():
    """A small TimeSformer with noise on every parameter, and clips of very different scale."""
    model = build_model(FIELDS, num_classes=4)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: x + 0.2 * rng.standard_normal(x.shape).astype(np.float32),
        init_variables(model, jax.random.key(0)),
    )
    frames = rng.standard_normal((3, 3, 16, 16, 3)).astype(np.float32)
    return model, variables, frames * np.array([0.3, 1, 2], np.float32).reshape(3, 1, 1, 1, 1)


def logit_of(case, target):
    model, variables, _ = case
    return jax.jit(lambda x: model.apply(variables, {"frames": x})[0][:, target])


def gradient_of(case, target):
    logit = logit_of(case, target)
    return jax.jit(jax.grad(lambda x: logit(x).sum()))


def test_maps_are_those_of_the_formulas(case):
    model, variables, x = case
    gradient = np.asarray(gradient_of(case, 2)(x))
    expected = {
        "saliency": np.abs(gradient).max(-1),
        "input_x_gradient": np.maximum((x * gradient).sum(-1), 0),
    }
    for method, maps in expected.items():
        found = explain(model, variables, {"frames": x}, method, target=2, normalize=False)
        np.testing.assert_allclose(found.maps, maps, atol=1e-5 * maps.max())
        np.testing.assert_array_equal(found.target, [2, 2, 2])


def test_integrated_gradients_add_up_to_what_the_logit_gains(case):
    x = jnp.asarray(case[2])
    logit, gradient = logit_of(case, 1), gradient_of(case, 1)
    gained = np.asarray(logit(x) - logit(jnp.zeros_like(x)))

    def error(steps):
        signed = attribution("integrated_gradients", gradient, x, steps)
        return np.abs(np.asarray(signed.sum((1, 2, 3, 4))) - gained).max()

    assert error(256) < 0.02 * np.abs(gained).max()
    assert error(256) < error(4)


def test_the_gradient_of_a_straight_line_is_the_same_everywhere():
    rng = np.random.default_rng(0)
    x, slope = jnp.asarray(rng.standard_normal((2, 2, 3, 4, 5, 3)), jnp.float32)
    for method, expected in {
        "saliency": slope, "smooth_grad": slope,
        "input_x_gradient": x * slope, "integrated_gradients": x * slope,
    }.items():  # fmt: skip
        found = attribution(method, lambda x: slope, x, steps=5)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_smooth_grad_is_the_mean_over_noise_of_the_stated_width():
    x = jnp.linspace(-1, 3, 24, dtype=jnp.float32).reshape(1, 2, 2, 2, 3)
    # Of a cube the mean gradient is 3 (x^2 + the variance of the noise).
    found = attribution("smooth_grad", lambda x: 3 * x**2, x, steps=4000)
    width = input_gradient.NOISE * 4
    np.testing.assert_allclose(found, 3 * (x**2 + width**2), rtol=0.15, atol=0.1)


@pytest.mark.parametrize("method", input_gradient.METHODS)
def test_a_clips_map_depends_on_no_other_clip(case, method):
    model, variables, x = case
    together = explain(model, variables, {"frames": x}, method, normalize=False)
    for i in range(len(x)):
        alone = explain(model, variables, {"frames": x[i : i + 1]}, method, normalize=False)
        tolerance = 1e-4 * float(alone.maps.max())
        np.testing.assert_allclose(together.maps[i], alone.maps[0], atol=tolerance)
    assert (np.asarray(together.maps) >= 0).all()
    assert together.maps.shape == (3, 3, 16, 16)


def test_sound_has_no_colours_and_padding_no_relevance():
    signed = jnp.array([-2.0, 1.0]).reshape(1, 1, 1, 2)
    np.testing.assert_array_equal(relevance("saliency", signed), np.abs(signed))
    np.testing.assert_array_equal(relevance("input_x_gradient", signed), np.maximum(signed, 0))


def test_what_padding_holds_changes_no_noise():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 4, 3, 5)), jnp.float32)
    valid = jnp.asarray([[True] * 4, [True, True, False, False]])
    padded = jnp.where(valid[..., None, None], x, -20.0)
    one, other = (
        attribution("smooth_grad", lambda x: 3 * x**2, each, steps=4, valid=valid)
        for each in (x, padded)
    )
    inside = np.broadcast_to(valid[..., None, None], x.shape)
    np.testing.assert_allclose(one[inside], other[inside], rtol=1e-5)


def test_every_method_says_how_many_passes_it_takes():
    found = {method: passes_of(method) for method in METHODS}
    assert (found["tibav"], found["rollout_mean"], found["eigen_cam"]) == (2, 1, 1)
    assert (found["grad_cam"], found["saliency"]) == (2, 2)
    assert found["integrated_gradients"] == 1 + 2 * input_gradient.STEPS
