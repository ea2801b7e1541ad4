"""Outputs agree, or one line says how they differ."""

import numpy as np
import pytest

from aver_jax.bench.agreement import Disagreement, checked_agreement

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 6)).astype(np.float32)
MAPS = RNG.uniform(size=(4, 2, 3, 3)).astype(np.float32)
LOSSES = np.float32([2.0, 1.8, 1.5])


def check(task, dtype, ours, theirs):
    name = {"train": "losses", "inference": "logits", "relevance": "maps"}[task]
    return checked_agreement(task, dtype, {name: ours}, {name: theirs}, "other")


def test_rounding_is_allowed_and_reported():
    found = check("inference", "float32", LOGITS, LOGITS * np.float32(1 + 1e-5))
    assert 0 < found["difference"] < found["tolerance"]
    check("inference", "bfloat16", LOGITS, LOGITS * 1.02)
    check("train", "float32", LOSSES, LOSSES + 1e-4)


def test_fewer_clips_are_compared_with_the_first():
    check("relevance", "float32", MAPS, MAPS[:2])


@pytest.mark.parametrize(
    ("task", "ours", "theirs", "what"),
    [
        ("inference", LOGITS, LOGITS[::-1], "logits of other differ"),
        ("inference", LOGITS, LOGITS * 1.02, "differ"),
        ("inference", LOGITS, LOGITS[:, :5], r"are \[4, 5\]"),
        ("inference", LOGITS, LOGITS * np.nan, "not all finite"),
        ("relevance", MAPS, MAPS[:, ::-1], "correlate"),
        ("train", LOSSES, LOSSES[[0, 0, 0]], "losses of other differ"),
        ("train", LOSSES[[0, 0, 0]], LOSSES[[0, 0, 0]], "too little to show"),
    ],
)
def test_different_outputs_are_refused(task, ours, theirs, what):
    with pytest.raises(Disagreement, match=f"parity failed: .*{what}"):
        check(task, "float32", ours, theirs)


def test_missing_outputs_are_refused():
    with pytest.raises(Disagreement, match="other gave no logits"):
        checked_agreement("inference", "float32", {"logits": LOGITS}, {}, "other")


def test_the_input_has_nothing_to_compare():
    assert checked_agreement("input", "float32", {}, {}, "other") == {}
