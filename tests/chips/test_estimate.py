"""From a compiled program's text to memory, time at the limits, MFU and what the links need."""

from types import SimpleNamespace

import pytest

from aver_jax.chips.catalog import CHIPS, parse_target
from aver_jax.chips.estimate import estimate
from aver_jax.chips.largest import largest_batch
from aver_jax.chips.table import estimate_text
from aver_jax.errors import UserError

PROGRAM = """HloModule jit_f, is_scheduled=true

ENTRY %main (a: f32[4096,4096], b: f32[4096,4096]) -> f32[4096,4096] {
  %a = f32[4096,4096]{1,0} parameter(0)
  %b = f32[4096,4096]{1,0} parameter(1)
  %dot = f32[4096,4096]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, backend_config={"estimated_cycles":"3000000"}
  %sum = f32[4096,4096]{1,0} all-reduce(%dot), replica_groups={}, to_apply=%add
  ROOT %tanh = f32[4096,4096]{1,0} tanh(%sum), backend_config={"estimated_cycles":"300000"}
}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %plus = f32[] add(%x, %y)
}
"""
SIDE = 4096
FLOPS, BYTES = 2 * SIDE**3, 4 * SIDE**2


class Compiled:
    def __init__(self, temporary=2**30):
        self._temporary = temporary

    def as_text(self):
        return PROGRAM

    def memory_analysis(self):
        return SimpleNamespace(
            argument_size_in_bytes=1017, output_size_in_bytes=100, alias_size_in_bytes=60, temp_size_in_bytes=self._temporary,
            generated_code_size_in_bytes=5,
        )  # fmt: skip


def of(chip, needed=FLOPS, **fields):
    target = parse_target(chip)
    held = {"parameters": 1000, "batch": 10}
    return estimate(Compiled(**fields), target, needed, 16, "float32", held), target


def test_a_gpus_kernels_take_the_longer_of_their_bytes_and_their_products():
    found, target = of("h100:4", needed=2 * FLOPS)
    chip = target.chip
    product = FLOPS / chip.matmul["float32"]
    assert product > 3 * BYTES / chip.copy  # so it is the product that binds it
    assert found.seconds == pytest.approx(product + 2 * BYTES / chip.copy)
    assert found.kind == "bound"
    # Each device needs its share of the batch's FLOPs.
    assert found.floor == pytest.approx(2 * FLOPS / 4 / chip.matmul["float32"])
    assert (found.done, found.bytes) == (FLOPS, 3 * BYTES + 2 * BYTES + 2 * BYTES)


def test_a_tpus_time_is_the_compilers_cycles():
    found, target = of("v5e:2x2")
    assert found.kind == "estimate"
    assert found.seconds == pytest.approx(3_300_000 / target.chip.clock)


def test_an_all_reduce_sends_nearly_twice_its_bytes():
    found, target = of("h100:8")
    (one,) = found.collectives
    assert (one.kind, one.count, one.bytes) == ("all-reduce", 1, BYTES)
    assert one.seconds == pytest.approx(2 * 7 / 8 * BYTES / target.chip.link)
    slow, fast = found.clips_per_second
    assert slow == pytest.approx(16 / (found.seconds + one.seconds))
    assert fast == pytest.approx(16 / max(found.seconds, one.seconds))
    assert found.mfu == pytest.approx(found.floor / (found.seconds + one.seconds))


def test_memory_is_all_that_a_device_holds():
    found, _ = of("l4")
    assert found.memory == {
        "parameters": 1000, "batch": 10, "padding": 7, "activations and temporaries": 2**30,
        "results and program": 45,
    }  # fmt: skip
    assert found.fits
    assert not of("l4", temporary=CHIPS["l4"].memory)[0].fits


def test_the_text_says_first_that_nothing_was_measured():
    found, target = of("h100:8")
    text = estimate_text(found, target, "net: train", 3.0, top=1)
    assert text.splitlines()[0].startswith("a bound, not a measurement")
    assert "clips/s on 8 x h100, MFU" in text
    assert "all-reduce          1 of 67.1 MB together" in text
    assert "copy: measured on one H100" in text
    assert text.count("\n  ") < 14


@pytest.mark.parametrize(
    ("text", "devices", "topology"),
    [
        ("h100", 1, "1x1x1"), ("h100:8", 8, "1x8x1"), ("a100:256", 256, "32x8x1"),
        ("v5e", 1, "1x1"), ("v6e:16x16", 256, "16x16"), ("v5p:2x2x2", 8, "2x2x2"),
        # Two cores a chip.
        ("v4:2x2x1", 8, "2x2x1"),
    ],
)  # fmt: skip
def test_chips_and_slices_are_read(text, devices, topology):
    target = parse_target(text)
    assert (target.devices, target.topology) == (devices, topology)


@pytest.mark.parametrize(
    "text",
    ["b200", "h100:", "h100:0", "h100:12", "h100:264", "h100:2x2", "v5e:4", "v5e:2x2x2",
     "v5p:4x4", "v5e:32x16", "v5e:0x4", ""],
)  # fmt: skip
def test_what_is_no_chip_is_one_line(text):
    with pytest.raises(UserError, match=r"^--chip is .*; expected "):
        parse_target(text)


def test_every_rate_has_a_source():
    for chip in CHIPS.values():
        assert {"memory", "copy", "bfloat16", "link"} <= chip.sources.keys()
        assert all(word.startswith(("measured", "published", "not published"))
                   for word in chip.sources.values())  # fmt: skip


@pytest.mark.parametrize("most", [1, 3, 7, 100, 1000])
def test_the_largest_batch_is_found_in_a_few_compilations(most):
    asked = []

    def fits(batch):
        asked.append(batch)
        return batch <= most * 4

    found = largest_batch(64, 4, fits)
    assert found % 4 == 0
    assert most * 4 * 7 / 8 - 4 <= found <= most * 4
    assert len(asked) == len(set(asked)) <= 12


def test_nothing_fits():
    assert largest_batch(8, 8, lambda batch: False) is None
