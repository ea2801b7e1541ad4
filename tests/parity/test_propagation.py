"""LibraGrad, AttnLRP and LeGrad against relevance propagated function by function in torch."""

import numpy as np
import pytest

from aver_jax.models.timesformer.timesformer import TimeSformer
from aver_jax.models.weights.timesformer import convert
from aver_jax.relevance import explain
from aver_jax.relevance.propagation import patch_sums
from tools import reference_propagation
from tools.make_reference import noisy_model
from tools.reference_relevance import PATHS

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("attention", PATHS)
def test_maps_are_those_of_the_published_formulas(attention):
    torch_model = noisy_model(
        attention,
        width=24,
        heads=3,
        hidden=48,
        depth=3,
        image_size=12,
        patch_size=4,
        num_frames=4,
        num_classes=6,
    )
    state = {name: value.numpy() for name, value in torch_model.state_dict().items()}
    converted = convert(state, num_heads=3, num_frames=4)
    model, variables = TimeSformer(**converted.fields), {"params": converted.params}
    frames = np.random.default_rng(0).normal(size=(2, 4, 12, 12, 3)).astype(np.float32)
    target = np.array([1, 4])

    def compare(method, path, expected):
        found = explain(
            model, variables, {"frames": frames}, method, path, target=target, normalize=False
        )
        assert expected.max() > 0
        np.testing.assert_allclose(
            found.maps, expected, rtol=1e-5, atol=1e-5 * expected.max(), err_msg=f"{method} {path}"
        )
        return found.logits

    for path in PATHS[attention]:
        compare("legrad", path, reference_propagation.legrad(torch_model, frames, target)[path])
    for method in reference_propagation.METHODS:
        expected = reference_propagation.relevance(torch_model, frames, target, method)
        sums = np.asarray(patch_sums(expected["pixels"], 4))
        logits = compare(method, PATHS[attention][0], np.maximum(sums, 0))
        np.testing.assert_allclose(logits, expected["logits"], rtol=1e-5, atol=1e-5)
        for name, maps in expected.items():
            if "/" in name:
                compare(*name.split("/"), maps)
