"""Relevance against torch autograd on transformers' TimeSformer and dense float64 matrices."""

import numpy as np
import pytest

from aver_jax.relevance import explain
from tools import reference_cam
from tools.reference_relevance import METHODS, PATHS, relevance

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("attention", PATHS)
def test_maps_agree_with_torch(both_timesformers, attention):
    torch_model, model, variables, frames = both_timesformers(attention)
    predicted = relevance(torch_model, frames)
    other_class = (predicted["target"] + 1) % 6
    for target in (None, other_class):
        expected = relevance(torch_model, frames, target)
        for path in PATHS[attention]:
            for method in METHODS:
                found = explain(
                    model,
                    variables,
                    {"frames": frames},
                    method,
                    path,
                    target=target,
                    normalize=False,
                )
                np.testing.assert_array_equal(found.target, expected["target"])
                np.testing.assert_allclose(found.logits, expected["logits"], atol=1e-5, rtol=1e-5)
                raw = expected[f"{method}/{path}"]
                np.testing.assert_allclose(found.maps, raw, rtol=1e-4, atol=1e-5 * raw.max())
                low, high = (f(raw, (1, 2, 3), keepdims=True) for f in (np.min, np.max))
                scaled = explain(
                    model,
                    variables,
                    {"frames": frames},
                    method,
                    path,
                    target=target,
                ).maps
                np.testing.assert_allclose(scaled, (raw - low) / (high - low), atol=1e-5)


@pytest.mark.parametrize("attention", ["divided_space_time", "joint_space_time"])
def test_the_cam_family_agrees_with_torch(both_timesformers, attention):
    torch_model, model, variables, frames = both_timesformers(attention)
    for path in PATHS[attention]:
        expected = reference_cam.relevance(torch_model, frames, np.array([1, 4]), path)
        for method in reference_cam.METHODS:
            arguments = (variables, {"frames": frames}, method, path)
            found = explain(model, *arguments, target=[1, 4], normalize=False).maps
            raw = expected[method]
            assert raw.max() > 0
            np.testing.assert_allclose(found, raw, rtol=1e-4, atol=2e-5 * raw.max())
