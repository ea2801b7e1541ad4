"""Cases run by pretended workers: order, agreement, failures, results, table."""

import dataclasses
import functools
import json
import sys
import time
from pathlib import Path

import pytest

from aver_jax.bench import pages, runner
from aver_jax.bench.cases import SETS
from aver_jax.bench.pages import benchmark_page, write_benchmark
from aver_jax.bench.plot import benchmark_figure
from aver_jax.bench.results import run_benchmark
from aver_jax.bench.runner import Settings, Side, run_case

CASE = next(case for case in SETS["mini"] if case.task == "inference")
FAKE = str(Path(__file__).with_name("fake_worker.py"))


def side(name, how=None, notes=None, **options):
    words = [sys.executable, FAKE, how or {"aver_jax": "ours"}.get(name, "same")]
    return Side(name, (*words, *([str(notes)] if notes else [])), **options)


def settings(folder, **options):
    return Settings(rounds=3, logs=folder / "logs", **options)


def run(folder, *others, **options):
    return run_case(CASE, [side("aver_jax"), *others], settings(folder, **options), budget=60.0)


def test_sides_are_compared_then_timed_in_turn(tmp_path):
    notes = tmp_path / "notes"
    sides = [side("aver_jax", "ours", notes), side("torch", "slow", notes)]
    record = run_case(CASE, sides, settings(tmp_path), budget=60.0)
    words = notes.read_text().split("\n")
    assert words[:2] == ["aver_jax prepare", "torch prepare"]
    # One call to warm up, then rounds whose order turns.
    timed = [line.split()[0] for line in words if line.endswith("time")]
    assert timed == ["ours", "slow", "ours", "slow", "slow", "ours", "ours", "slow"]
    assert record["error"] is None
    assert record["ratios"]["torch"]["median"] == pytest.approx(2.0)
    assert record["sides"]["torch"]["clips_per_s"] == pytest.approx(2 / 0.2)
    assert record["parity"]["torch"]["difference"] == 0.0
    assert record["costs"]["flops"] == 2e9


def test_disagreement_stops_the_case_before_it_is_timed(tmp_path):
    record = run(tmp_path, side("torch", "other"))
    assert record["error"].startswith("parity failed: logits of torch differ")
    assert all("seconds" not in found for found in record["sides"].values())
    assert record["ratios"] == {}


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("raises", "torch: ValueError: no such layer"),
        ("dies", "torch has ended (exit code 3): Segmentation fault"),
        ("silent", "torch gave no answer within 2 s, the time it had"),
    ],
)
def test_a_side_that_fails_is_named_and_the_others_go_on(tmp_path, how, what):
    record = run(tmp_path, side("torch", how), side("hooks"), timeout=2.0)
    assert record["sides"]["torch"] == {"error": what}
    assert record["error"] is None
    assert list(record["ratios"]) == ["hooks"]


def test_a_case_without_our_side_has_failed(tmp_path):
    sides = [side("aver_jax", "raises"), side("torch")]
    record = run_case(CASE, sides, settings(tmp_path), budget=60.0)
    assert record["error"] == "aver_jax: ValueError: no such layer"


def test_sides_that_do_not_take_a_case_are_left_out(tmp_path):
    record = run(tmp_path, side("torch", takes=lambda case: False), side("hooks", "skips"))
    assert list(record["sides"]) == ["aver_jax", "hooks"]
    assert record["sides"]["hooks"]["skip"] == "not my task"
    assert record["ratios"] == {}


def test_a_side_may_do_fewer_clips(tmp_path):
    record = run(tmp_path, side("hooks", clips=1))
    # Half the clips in the same time.
    assert record["ratios"]["hooks"]["median"] == pytest.approx(2.0)


@pytest.mark.parametrize("threads", [2, 16])
def test_batches_that_lay_ready_are_not_counted(threads):
    # One each in the making, and one more than that in the buffer; then they come in pairs.
    seconds = iter([0.0] * (2 * threads + 1) + [0.2, 0.0] * 50)
    flow = runner._flow(lambda count: [next(seconds) for _ in range(count)], threads)
    assert flow == [pytest.approx(0.1)]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc who lives")
@pytest.mark.parametrize("how", ["crowded", "squeezed"])
def test_sides_that_do_not_fit_into_memory_together_run_one_after_the_other(tmp_path, how):
    record = run(tmp_path, side("torch", how))
    assert record["error"] is None
    assert record["alternated"] is False
    assert record["ratios"]["torch"]["median"] == pytest.approx(1.0)


def test_results_are_written_whole_with_floor_and_shares(tmp_path, monkeypatch):
    out = tmp_path / "out"
    failed = write_benchmark(
        [CASE],
        [side("aver_jax"), side("torch", "slow")],
        settings(out),
        out,
        1.0,
        ["aver", "bench"],
    )
    assert failed == []
    assert {path.name for path in out.iterdir()} == {
        "results.json", "table.md", "plot.png", "logs",
    }  # fmt: skip
    results = json.loads((out / "results.json").read_text())
    assert set(results["provenance"]) == {"date", "machine", "system", "command"}
    (record,) = results["cases"]
    # 2 GFLOP at 100 GFLOP/s and 1 MB at 10 GB/s.
    assert record["floor"]["seconds"] == pytest.approx(0.02)
    assert record["floor"]["binds"] == "FLOPs"
    ours = record["sides"]["aver_jax"]
    assert ours["matmul_share"] == pytest.approx(0.2)
    assert ours["floor_gap"] == pytest.approx(5.0)
    assert ours["startup_seconds"] == pytest.approx(0.9)
    row = f"| {CASE.name} | aver_jax | 20 | 100 (100-100) | 0.02 | 20% | 20 F | 5.0 | 1 | 0.9 |  |"
    assert row in (out / "table.md").read_text()
    assert "2 (2-2) |" in (out / "table.md").read_text()
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_failure_is_listed_and_other_cases_are_there(tmp_path):
    sides = [side("aver_jax"), side("torch", "raises")]
    results = run_benchmark(
        [CASE, CASE], sides, settings(tmp_path), 1.0, ["x"], say=lambda line: None
    )
    page = benchmark_page(results)
    assert page.count(f"- {CASE.name}: torch: ValueError: no such layer") == 2
    assert page.count("| aver_jax |") == 2


def test_cases_that_no_time_is_left_for_are_named(tmp_path):
    record_of = []

    def slow(case, *_):
        record_of.append(case)
        return run(tmp_path)

    results = run_benchmark(
        [CASE, CASE], [side("aver_jax")], settings(tmp_path), 1e-9, ["x"],
        say=lambda line: None, run=slow,
    )  # fmt: skip
    assert record_of == []
    assert "not run: no time was left; raise --minutes" in benchmark_page(results)
    assert benchmark_figure(results) is None


def test_what_is_done_is_written_before_the_next_case(tmp_path, monkeypatch):
    cases = [CASE, dataclasses.replace(CASE, name="second")]

    def stopped(case, *how):
        if case.name == "second":
            raise KeyboardInterrupt
        return runner.run_case(case, *how)

    monkeypatch.setattr(pages, "run_benchmark", functools.partial(run_benchmark, run=stopped))
    with pytest.raises(KeyboardInterrupt):
        write_benchmark(
            cases, [side("aver_jax")], settings(tmp_path), tmp_path, 1.0, ["aver", "bench"]
        )
    assert f"| {CASE.name} | aver_jax | 20 |" in (tmp_path / "table.md").read_text()
    (record,) = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert record["case"]["name"] == CASE.name


def test_what_is_ready_is_timed_though_the_time_is_over(tmp_path):
    limit = settings(tmp_path, deadline=time.monotonic() + 3)
    record = run_case(CASE, [side("aver_jax"), side("torch", "sleepy")], limit, budget=3.0)
    assert time.monotonic() > limit.deadline
    assert record["error"] is None
    assert len(record["sides"]["torch"]["rounds"]) == limit.rounds
    assert record["ratios"]["torch"]["median"] == pytest.approx(10.0)


def test_no_side_is_waited_for_longer_than_there_is_time(tmp_path):
    sides = [side("aver_jax"), side("torch", "silent")]
    results = run_benchmark([CASE], sides, settings(tmp_path), 0.05, ["x"], say=lambda line: None)
    assert results["cases"][0]["seconds"] < 30  # the worker is silent for 60
    assert "torch gave no answer within" in benchmark_page(results)


def test_time_is_shared_out_by_what_is_left(tmp_path):
    budgets = []

    def instant(case, sides, settings, budget):
        budgets.append(budget)
        return run(tmp_path)

    run_benchmark(
        [CASE] * 3, [side("aver_jax")], settings(tmp_path), 1.0, ["x"],
        say=lambda line: None, run=instant,
    )  # fmt: skip
    assert 15 < budgets[0] <= 20
    assert budgets[0] < budgets[1] < budgets[2]


def test_the_command_is_kept_without_folders_of_this_machine(tmp_path):
    results = run_benchmark(
        [], [side("aver_jax")], settings(tmp_path), 1.0,
        ["aver", "bench", "--out", str(tmp_path), f"--data={tmp_path}/clips"],
        say=lambda line: None,
    )  # fmt: skip
    assert results["provenance"]["command"] == f"aver bench --out {tmp_path.name} --data=clips"
