"""Roofline bounds: FLOPs against stated numbers and XLA's count, bytes, rates of the device."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from aver_jax.bench import roofline
from aver_jax.bench.cases import SETS, resnet, timesformer, without_model
from aver_jax.bench.roofline import Rates, roofline_bound

MINI = {c.task: c for c in SETS["mini"] if c.model.get("name") == "timesformer"}
RATES = Rates({"float32": 1e12}, 1e11)


def of(*words):
    return jax.ShapeDtypeStruct(words, jnp.float32)


@pytest.mark.parametrize(("task", "tera"), [("inference", 0.392), ("train", 1.175)])
def test_a_clip_of_timesformer_b_costs_what_is_stated(task, tera):
    case = timesformer("B", task, 1, 8, 224, "bfloat16")
    assert roofline.flops(case) / 1e12 == pytest.approx(tera, rel=2e-3)


def test_flops_grow_with_the_batch():
    case = timesformer("B", "train", 1, 8, 224, "bfloat16")
    assert roofline.flops(dataclasses.replace(case, batch_size=64)) == 64 * roofline.flops(case)


def test_relevance_is_two_forward_passes():
    assert roofline.flops(MINI["relevance"]) == 2 * roofline.flops(MINI["inference"])


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("task", ["train", "inference"])
def test_xla_counts_the_same_flops_rolled_and_unrolled(task, unroll):
    # Wide enough that elementwise work, which XLA counts too, is a small share.
    case = timesformer("S", task, 1, 2, 112, "float32")
    case = dataclasses.replace(case, model=case.model | {"depth": 3, "unroll": unroll})
    assert roofline.xla_flops(case) / roofline.flops(case) == pytest.approx(1.0, abs=0.05)


def test_xla_counts_the_same_flops_of_a_residual_network():
    # It leaves products with padding out, and there is little of it at this size.
    case = resnet("video", "inference", 1, 1, 224, 0.0, "float32")
    assert roofline.xla_flops(case) / roofline.flops(case) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("length", "unroll"), [(10, 1), (10, 4), (10, 10), (3, 5)])
def test_every_iteration_of_a_loop_is_counted(length, unroll):
    def chain(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=length, unroll=unroll)[0]

    counted = roofline.counted_by_xla(chain, of(64, 64), of(64, 64))
    assert counted == pytest.approx(length * 2 * 64**3, rel=1e-3)


def test_loops_in_loops_are_counted():
    def inner(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=3)[0]

    def outer(x, w):
        return jax.lax.scan(lambda c, _: (inner(c, w), None), x, None, length=5)[0]

    counted = roofline.counted_by_xla(outer, of(64, 64), of(64, 64))
    assert counted == pytest.approx(15 * 2 * 64**3, rel=1e-3)


def test_compiled_functions_count_loops_once():
    # The reason for counting the other iterations; when XLA changes, `counted_by_xla` must.
    def chain(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=10)[0]

    compiled = jax.jit(chain).lower(of(64, 64), of(64, 64)).compile()
    assert compiled.cost_analysis()["flops"] == pytest.approx(2 * 64**3, rel=0.02)


def test_bytes_of_a_training_are_parameters_inputs_and_residuals():
    case = MINI["train"]
    moved = roofline.least_bytes(case)
    parameters = moved["parameters"] / 44
    assert parameters == int(parameters)
    frames = case.batch_size * case.num_frames * case.image_size**2 * 3
    assert frames < moved["inputs"] < 1.1 * frames
    less = dataclasses.replace(case, model=case.model | {"remat": "block"})
    assert 0 < roofline.least_bytes(less)["residuals"] < moved["residuals"] / 2


def test_the_front_end_reads_integers_and_writes_floats():
    moved = roofline.least_bytes(without_model("augmentation", 2, 2, 32, 0.0))
    assert moved["outputs"] == 4 * 2 * 2 * 32 * 32 * 3
    moved = roofline.least_bytes(without_model("spectrogram", 2, 0, 0, 1.0))
    assert moved["outputs"] >= 4 * 2 * 257 * 250


def test_the_slower_of_computing_and_copying_binds():
    bound = roofline_bound(flops=2e12, moved=1e11, dtype="float32", rates=RATES)
    assert (bound.seconds, bound.binds) == (2.0, "FLOPs")
    bound = roofline_bound(flops=2e12, moved=4e11, dtype="float32", rates=RATES)
    assert (bound.seconds, bound.binds) == (4.0, "bytes")


def test_the_best_rate_counts():
    other = Rates({"float32": 2e12}, 1e10)
    assert roofline.faster(RATES, other) == Rates({"float32": 2e12}, 1e11)


def test_rates_are_measured():
    rates = roofline.measured_rates(["float32"], repeats=1)
    assert rates.matmul["float32"] > 1e8
    assert rates.copy > 1e7
