"""LibraGrad, AttnLRP and LeGrad against relevance propagated function by function in torch."""

import numpy as np
import pytest

from aver_jax.relevance import explain
from aver_jax.relevance.propagation import patch_sums
from tools import reference_propagation
from tools.reference_relevance import PATHS

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("attention", PATHS)
def test_maps_are_those_of_the_published_formulas(both_timesformers, attention):
    torch_model, model, variables, frames = both_timesformers(attention)
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
