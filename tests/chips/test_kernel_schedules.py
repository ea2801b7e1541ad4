"""Cycles of Pallas kernels: which kernels a program has, and what their schedules say."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from aver_jax.chips import kernel_schedules
from aver_jax.chips.catalog import parse_target
from aver_jax.models.attention import tpu

SCHEDULE = """Schedule analysis:
	total scheduled bundles:    5271
	5265.00 scheduled bundles (100.00%): custom-call(%a), custom_call_target="tpu_custom_call"
"""


def attention_of_two_sizes(q):
    """Three calls of two kernels, one of them in a loop."""
    first = tpu.row_attention(q, q, q, 2, 16)
    again, _ = jax.lax.scan(
        lambda x, _: (tpu.row_attention(x, x, x, 2, 16), None), first, None, length=3
    )
    return tpu.time_attention(again[None], again[None], again[None], 2)


def test_kernels_are_found_once_each_and_count_for_every_block(monkeypatch):
    jaxpr = jax.make_jaxpr(attention_of_two_sizes)(jnp.zeros((4, 40, 32), jnp.bfloat16)).jaxpr
    monkeypatch.setattr(kernel_schedules, "_bundles", lambda kernels, target: [100, 10])
    found = kernel_schedules.kernel_cycles(jaxpr, parse_target("v5e"))
    assert found == {
        "bf16[4,1,40,32]": 4 * 100,
        # Blocks of 16 positions, of which there are 40.
        "bf16[1,4,40,32]": 3 * 10,
    }


def test_a_program_without_kernels_starts_no_process(monkeypatch):
    monkeypatch.setattr(kernel_schedules, "_bundles", None)
    jaxpr = jax.make_jaxpr(jnp.sin)(1.0).jaxpr
    assert kernel_schedules.kernel_cycles(jaxpr, parse_target("v5e")) == {}


@pytest.mark.parametrize(
    ("name", "text", "total"),
    [
        ("1-f-00-schedule-analysis_final_bundles.txt", SCHEDULE, 5271),
        ("1-TLP-00-schedule-analysis_final_bundles.txt", SCHEDULE, 0),
        ("1-f-01-final_bundles.txt", SCHEDULE, 0),
        ("1-f-00-schedule-analysis_final_bundles.txt", "total scheduled bundles: 7", 0),
    ],
)
def test_the_total_is_that_of_a_kernels_schedule(tmp_path, name, text, total):
    file = tmp_path / name
    file.write_text(text)
    assert kernel_schedules._total(file) == total


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("libtpu", "flatbuffers"))),
    reason="needs the extra chips",
)
def test_a_kernel_of_twice_the_blocks_takes_twice_the_cycles():
    def cycles(rows):
        q = jax.ShapeDtypeStruct((rows, 40, 128), jnp.bfloat16)
        jaxpr = jax.make_jaxpr(lambda q: tpu.row_attention(q, q, q, 2, 40))(q).jaxpr
        (found,) = kernel_schedules.kernel_cycles(jaxpr, parse_target("v5e")).values()
        return found

    assert cycles(8) == 2 * cycles(4) > 8 * 40
