"""What a case costs: the numbers that the project states, and XLA's own count."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from aver_jax.bench.cases import SETS, resnet, timesformer, without_model
from aver_jax.bench.worker import costs

MINI = {c.task: c for c in SETS["mini"] if c.model.get("name") == "timesformer"}


def of(*words):
    return jax.ShapeDtypeStruct(words, jnp.float32)


@pytest.mark.parametrize(("task", "tera"), [("inference", 0.392), ("train", 1.175)])
def test_a_clip_of_timesformer_b_costs_what_is_stated(task, tera):
    case = timesformer("B", task, 1, 8, 224, "bfloat16")
    assert costs.flops(case) / 1e12 == pytest.approx(tera, rel=2e-3)


def test_flops_grow_with_the_batch():
    case = timesformer("B", "train", 1, 8, 224, "bfloat16")
    assert costs.flops(dataclasses.replace(case, batch_size=64)) == 64 * costs.flops(case)


def test_relevance_is_two_forward_passes():
    assert costs.flops(MINI["relevance"]) == 2 * costs.flops(MINI["inference"])


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("task", ["train", "inference"])
def test_xla_counts_the_same_flops_rolled_and_unrolled(task, unroll):
    # Wide enough that elementwise work, which XLA counts too, is a small share.
    case = timesformer("S", task, 1, 2, 32, "float32")
    case = dataclasses.replace(case, model=case.model | {"depth": 3, "unroll": unroll})
    assert costs.xla_flops(case) / costs.flops(case) == pytest.approx(1.0, abs=0.05)


def test_xla_counts_the_same_flops_of_a_residual_network():
    # It leaves products with padding out, and there is little of it at this size.
    case = resnet("video", "inference", 1, 1, 224, 0.0, "float32")
    assert costs.xla_flops(case) / costs.flops(case) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("length", "unroll"), [(10, 1), (10, 4), (10, 10), (3, 5)])
def test_every_round_of_a_loop_is_counted(length, unroll):
    def chain(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=length, unroll=unroll)[0]

    counted = costs.counted_by_xla(chain, of(64, 64), of(64, 64))
    assert counted == pytest.approx(length * 2 * 64**3, rel=1e-3)


def test_loops_in_loops_are_counted():
    def inner(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=3)[0]

    def outer(x, w):
        return jax.lax.scan(lambda c, _: (inner(c, w), None), x, None, length=5)[0]

    counted = costs.counted_by_xla(outer, of(64, 64), of(64, 64))
    assert counted == pytest.approx(15 * 2 * 64**3, rel=1e-3)


def test_compiled_programs_count_loops_once():
    # The reason for counting the other rounds; when XLA changes, `counted_by_xla` must.
    def chain(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=10)[0]

    compiled = jax.jit(chain).lower(of(64, 64), of(64, 64)).compile()
    assert compiled.cost_analysis()["flops"] == pytest.approx(2 * 64**3, rel=0.02)


def test_bytes_of_a_training_are_parameters_inputs_and_residuals():
    case = MINI["train"]
    moved = costs.least_bytes(case)
    parameters = moved["parameters"] / 44
    assert parameters == int(parameters)
    frames = case.batch_size * case.num_frames * case.image_size**2 * 3
    assert frames < moved["inputs"] < 1.1 * frames
    less = dataclasses.replace(case, model=case.model | {"remat": "block"})
    assert 0 < costs.least_bytes(less)["residuals"] < moved["residuals"] / 2


def test_the_front_end_reads_integers_and_writes_floats():
    moved = costs.least_bytes(without_model("augmentation", 2, 2, 32, 0.0))
    assert moved["outputs"] == 4 * 2 * 2 * 32 * 32 * 3
    moved = costs.least_bytes(without_model("spectrogram", 2, 0, 0, 1.0))
    assert moved["outputs"] >= 4 * 2 * 257 * 250
