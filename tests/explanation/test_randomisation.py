"""The cascade of randomised parameters, and the rank correlation of maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.explanation.metrics.randomisation import (
    cascade,
    parts_from_the_head,
    rank_correlation,
)


def test_rank_correlation_worked_out_by_hand():
    one = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    # Ranks 2 1 4 3: 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15).
    assert rank_correlation(one, np.array([[[2.0, 1.0], [9.0, 7.0]]])) == pytest.approx(0.6)
    assert rank_correlation(one, -(one**3)) == pytest.approx(-1)
    assert np.isnan(rank_correlation(one, np.ones_like(one)))[0]


def _transformer(value: float) -> dict:
    blocks = {"kernel": jnp.full((2, 3), value)}
    return {
        "params": {
            "head": {"bias": jnp.full(1, value)},
            "norm": {"scale": jnp.full(1, value)},
            "blocks": blocks,
            "cls_token": jnp.full(1, value),
        }
    }


def test_parts_are_drawn_anew_one_after_the_other_from_the_head_down():
    steps = list(cascade(_transformer(0.0), _transformer(1.0)))
    assert [name for name, _ in steps] == ["head", "norm", "layer 2", "layer 1", "embeddings"]
    changed = [
        [
            float(leaf)
            for leaf in (
                p["head"]["bias"][0],
                p["norm"]["scale"][0],
                *p["blocks"]["kernel"][::-1, 0],
                p["cls_token"][0],
            )
        ]
        for p in (variables["params"] for _, variables in steps)
    ]
    assert changed == [[1.0] * (n + 1) + [0.0] * (4 - n) for n in range(5)]


def test_an_mrpn_is_randomised_from_its_fusion_to_its_cnns_with_its_statistics_last():
    def variables(value):
        branch = {"aggregator": jnp.full(1, value), "cnn": jnp.full(1, value)}
        params = {"audio": branch, "video": branch}
        params |= {n: {"k": jnp.full(1, value)} for n in ("fusion", "video_side", "video_residual")}
        return {"params": params, "batch_stats": {"m": jnp.full(1, value)}}

    names = [name for name, _ in parts_from_the_head(variables(0.0)["params"])]
    assert names == ["scoring", "side", "residual", "aggregator", "cnn"]
    *before, last = [v for _, v in cascade(variables(0.0), variables(1.0))]
    assert all(v["batch_stats"]["m"][0] == 0 for v in before)
    assert all(float(x[0]) == 1 for x in jax.tree.leaves(last))
