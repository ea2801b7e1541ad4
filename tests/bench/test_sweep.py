"""Sweeps: points, table and plot."""

import dataclasses

import pytest

from aver_jax.bench.cases import SETS
from aver_jax.bench.pages import sweep_table
from aver_jax.bench.plots import sweeps_figure
from aver_jax.bench.sweep import points_of
from aver_jax.bench.worker.inputs import case_model
from aver_jax.errors import UserError

FULL = SETS["full"][0]
SPREAD = {"median": 0.5, "low": 0.4, "high": 0.6}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("batch", [32, 64, 128]),
        ("frames", [8, 16, 32]),
        ("resolution", [112, 224, 336]),
        ("depth", [2, 2, 6, 6, 12, 12]),
    ],
)
def test_sweeps_lie_around_their_case(kind, values):
    points = points_of(kind, FULL)
    assert [point.value for point in points] == values
    for point in points:
        model = case_model(point.case)
        shape = (point.case.num_frames, point.case.image_size)
        assert (model.num_frames, model.image_size) == shape


def test_depths_are_compiled_as_a_loop_and_without():
    unrolls = [point.case.model["unroll"] for point in points_of("depth", FULL)]
    assert unrolls == [1, 2, 1, 6, 1, 12]


def test_a_sweep_that_does_not_apply_is_refused():
    with pytest.raises(UserError, match="needs a training case"):
        points_of("batch", SETS["full"][1])
    resnet = next(case for case in SETS["full"] if case.name.startswith("resnet"))
    with pytest.raises(UserError, match="needs a TimeSformer"):
        points_of("frames", resnet)


def record(kind, points, **fields):
    return {
        "sweep": kind, "title": FULL.name, "grows": kind, "case": dataclasses.asdict(FULL),
        "points": points, "facts": {}, **fields,
    }  # fmt: skip


def test_tables_have_a_row_per_point():
    measured = {"seconds": SPREAD, "clips_per_s": 128.0, "flops_per_s": 3e12, "way": ""}
    table = sweep_table(
        record("batch", [{"value": 64, **measured}, {"value": 128, "error": "no memory"}])
    )
    assert "| 64 | 128 | 500 (400-600) | 3 |" in table
    assert "| 128 | no memory |" in table
    ways = [{"value": n, "way": w, "startup_seconds": n, "seconds": SPREAD}
            for w in ("scan", "unrolled") for n in (2, 4)]  # fmt: skip
    table = sweep_table(record("depth", ways))
    assert "| 4 | 4.0 | 500 | 4.0 | 500 |" in table
    assert sweeps_figure([record("depth", ways)]) is not None


def test_simulated_devices_show_equal_losses_and_no_rates():
    points = [{"value": n, "way": "", "loss_difference": 1e-7} for n in (1, 2, 4)]
    table = sweep_table(record("devices", points, fake=True))
    assert "only real devices can" in table.replace("\n", " ")
    assert "clips/s |" not in table
    assert "| 4 | 1.0e-07 |" in table
    assert sweeps_figure([record("devices", points, fake=True)]) is None
