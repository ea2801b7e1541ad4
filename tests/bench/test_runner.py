"""Cases run by fake workers: order, agreement, failures, results, table."""

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
from aver_jax.bench.plots import benchmark_figure
from aver_jax.bench.results import run_benchmark
from aver_jax.bench.runner import Implementation, Settings, run_case

CASE = next(case for case in SETS["mini"] if case.task == "inference")
FAKE = str(Path(__file__).with_name("fake_worker.py"))


def fake(name, how=None, notes=None, **options):
    words = [sys.executable, FAKE, how or {"aver_jax": "ours"}.get(name, "same")]
    return Implementation(name, (*words, *([str(notes)] if notes else [])), **options)


def settings(folder, **options):
    return Settings(rounds=3, logs=folder / "logs", **options)


def run(folder, *others, **options):
    return run_case(CASE, [fake("aver_jax"), *others], settings(folder, **options), budget=60.0)


def test_implementations_are_compared_then_timed_in_turn(tmp_path):
    notes = tmp_path / "notes"
    chosen = [fake("aver_jax", "ours", notes), fake("torch", "slow", notes)]
    record = run_case(CASE, chosen, settings(tmp_path), budget=60.0)
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
    record = run(tmp_path, fake("torch", "other"))
    assert record["error"].startswith("parity failed: logits of torch differ")
    assert all("seconds" not in found for found in record["sides"].values())
    assert record["ratios"] == {}


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("raises", "torch: ValueError: no such layer"),
        ("dies", "torch has ended (exit code 3): Segmentation fault"),
        ("silent", "torch did not reply within its limit of 2 s"),
    ],
)
def test_a_failing_implementation_is_named_and_the_others_go_on(tmp_path, how, what):
    record = run(tmp_path, fake("torch", how), fake("hooks"), timeout=2.0)
    assert record["sides"]["torch"] == {"error": what}
    assert record["error"] is None
    assert list(record["ratios"]) == ["hooks"]


def test_a_case_without_our_outputs_fails(tmp_path):
    chosen = [fake("aver_jax", "raises"), fake("torch")]
    record = run_case(CASE, chosen, settings(tmp_path), budget=60.0)
    assert record["error"] == "aver_jax: ValueError: no such layer"


def test_implementations_that_do_not_support_a_case_are_left_out(tmp_path):
    record = run(
        tmp_path,
        fake("torch", supports=lambda case: False),
        fake("hooks", "skips"),
    )
    assert list(record["sides"]) == ["aver_jax", "hooks"]
    assert record["sides"]["hooks"]["skip"] == "not my task"
    assert record["ratios"] == {}


def test_an_implementation_may_do_fewer_clips(tmp_path):
    record = run(tmp_path, fake("hooks", clips=1))
    # Half the clips in the same time.
    assert record["ratios"]["hooks"]["median"] == pytest.approx(2.0)


@pytest.mark.parametrize("threads", [2, 16])
def test_prefetched_batches_are_not_counted(threads):
    # One each in the making, and one more than that in the buffer; then they come in pairs.
    seconds = iter([0.0] * (2 * threads + 1) + [0.2, 0.0] * 50)
    steady = runner._steady_seconds(lambda count: [next(seconds) for _ in range(count)], threads)
    assert steady == [pytest.approx(0.1)]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc who lives")
@pytest.mark.parametrize("how", ["crowded", "squeezed"])
def test_implementations_that_do_not_fit_together_run_one_after_the_other(tmp_path, how):
    record = run(tmp_path, fake("torch", how))
    assert record["error"] is None
    assert record["alternated"] is False
    assert record["ratios"]["torch"]["median"] == pytest.approx(1.0)


def test_results_are_written_with_bounds_and_shares(tmp_path, monkeypatch):
    out = tmp_path / "out"
    failed = write_benchmark(
        [CASE],
        [fake("aver_jax"), fake("torch", "slow")],
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
    chosen = [fake("aver_jax"), fake("torch", "raises")]
    results = run_benchmark(
        [CASE, CASE], chosen, settings(tmp_path), 1.0, ["x"], log=lambda line: None
    )
    page = benchmark_page(results)
    assert page.count(f"- {CASE.name}: torch: ValueError: no such layer") == 2
    assert page.count("| aver_jax |") == 2


def test_cases_without_time_left_are_named(tmp_path):
    record_of = []

    def slow(case, *_):
        record_of.append(case)
        return run(tmp_path)

    results = run_benchmark(
        [CASE, CASE], [fake("aver_jax")], settings(tmp_path), 1e-9, ["x"],
        log=lambda line: None, run=slow,
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
            cases,
            [fake("aver_jax")],
            settings(tmp_path),
            tmp_path,
            1.0,
            ["aver", "bench"],
        )
    assert f"| {CASE.name} | aver_jax | 20 |" in (tmp_path / "table.md").read_text()
    (record,) = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert record["case"]["name"] == CASE.name


def test_what_is_ready_is_timed_after_the_time_limit(tmp_path):
    limit = settings(tmp_path, deadline=time.monotonic() + 3)
    record = run_case(CASE, [fake("aver_jax"), fake("torch", "sleepy")], limit, budget=3.0)
    assert time.monotonic() > limit.deadline
    assert record["error"] is None
    assert len(record["sides"]["torch"]["rounds"]) == limit.rounds
    assert record["ratios"]["torch"]["median"] == pytest.approx(10.0)


def test_preparation_ends_with_the_time_limit(tmp_path):
    chosen = [fake("aver_jax"), fake("torch", "silent")]
    results = run_benchmark([CASE], chosen, settings(tmp_path), 0.05, ["x"], log=lambda line: None)
    assert results["cases"][0]["seconds"] < 30  # the worker is silent for 60
    assert "torch did not reply within" in benchmark_page(results)


def test_the_remaining_time_is_divided(tmp_path):
    budgets = []

    def instant(case, chosen, settings, budget):
        budgets.append(budget)
        return run(tmp_path)

    run_benchmark(
        [CASE] * 3, [fake("aver_jax")], settings(tmp_path), 1.0, ["x"],
        log=lambda line: None, run=instant,
    )  # fmt: skip
    assert 15 < budgets[0] <= 20
    assert budgets[0] < budgets[1] < budgets[2]


def test_the_command_is_kept_without_folders_of_this_machine(tmp_path):
    results = run_benchmark(
        [], [fake("aver_jax")], settings(tmp_path), 1.0,
        ["aver", "bench", "--out", str(tmp_path), f"--data={tmp_path}/clips"],
        log=lambda line: None,
    )  # fmt: skip
    assert results["provenance"]["command"] == f"aver bench --out {tmp_path.name} --data=clips"
