"""The comparison of aver_jax with other implementations, with fake workers."""

import json
import sys
from pathlib import Path

import pytest

from aver_jax.bench import runner
from aver_jax.bench.cases import SETS
from tools import bench_throughput

FAKE = Path(__file__).parents[1] / "bench" / "fake_worker.py"


@pytest.fixture(autouse=True)
def _our_worker_is_fake_too(monkeypatch):
    fake = runner.Implementation(runner.OURS, (sys.executable, str(FAKE), "ours"))
    monkeypatch.setattr(bench_throughput, "our_implementation", lambda: fake)


def compare(out, how, *words):
    worker = f"{sys.executable} {FAKE} {how}"
    given = ["--set", "mini", "--case", "mini_inference", "--repeats", "2", "--out", str(out)]
    return bench_throughput.main([*given, "--worker", worker, *words])


def test_every_implementation_has_its_row_and_its_ratio(tmp_path, capsys):
    assert compare(tmp_path, "slow") == 0
    table = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.startswith(table)
    for side in ("torch_tuned", "torch_transformers"):
        (row,) = (line for line in table.splitlines() if line.startswith(f"|  | {side} |"))
        assert row.endswith("| 2 (2-2) |")
    assert "torch_hooks" not in table
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["cases"][0]["ratios"]["torch_tuned"]["median"] == pytest.approx(2.0)
    assert (tmp_path / "plot.png").is_file()


def test_disagreement_ends_with_1_and_its_line(tmp_path, capsys):
    assert compare(tmp_path, "other") == 1
    said = capsys.readouterr()
    assert "failed: timesformer_mini_inference_2x32_b2: parity failed: logits of" in said.err
    assert "parity failed" in (tmp_path / "table.md").read_text()


def test_hooks_explain_fewer_clips(tmp_path):
    found = {each.name: each for each in bench_throughput.torch_implementations("x")}
    assert found["torch_hooks"].clips == bench_throughput.HOOK_CLIPS
    for case in SETS["full"]:
        if not case.name.startswith("timesformer"):
            assert [name for name in found if found[name].supports(case)] == ["torch_tuned"]


def test_unknown_cases_and_implementations_are_one_line(capsys):
    assert bench_throughput.main(["--case", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("bench_throughput: error: no case matches 'nothing'")
    assert bench_throughput.main(["--sides", "numpy", "--worker", "x"]) == 2
    assert "unknown --sides 'numpy'; choose from: torch_tuned" in capsys.readouterr().err
