"""What tools/gpu_check.sh does without a GPU: limits, files, judgements, the page, real cases."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from aver_jax.bench import runner
from aver_jax.chips.catalog import chip_of_device
from tools.gpu import attention, check, fast, findings, steps
from tools.gpu.machine import chip_name
from tools.gpu.sizes import SIZES

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parents[1] / "bench" / "fake_worker.py"
NO_GPU = {"gpu": None, "chip": "none", "driver": None, "cores": 2, "versions": {"jax": "1"}}


def python(text):
    return ("-c", text)


def ran(tmp_path, *steps, seconds=60.0, machine=NO_GPU):
    found = check.Check("works", "small", tmp_path, seconds, machine)
    found.run(steps)
    record = json.loads((tmp_path / "gpu_check.json").read_text())
    return found, [step["outcome"] for step in record["steps"]]


@pytest.mark.parametrize("words", [[], ["slow"]])
def test_without_a_mode_there_is_one_line(words):
    done = subprocess.run(
        [str(ROOT / "tools" / "gpu_check.sh"), *words], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "usage: tools/gpu_check.sh works|fast [WHEEL_DIR]\n"


def test_a_wrong_call_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "machine", lambda: NO_GPU)
    for name in ("SIZES", "DATA"):
        monkeypatch.delenv(name, raising=False)
    call = ["works", "--seconds", "5", "--out", str(tmp_path)]
    assert check.main(call) == 2
    monkeypatch.setenv("SIZES", "huge")
    assert check.main(call) == 2
    monkeypatch.setenv("SIZES", "small")
    monkeypatch.setenv("DATA", "nowhere")
    assert check.main(call) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "gpu_check: no NVIDIA GPU is here",
        "gpu_check: SIZES is 'huge'",
        "gpu_check: no prepared dataset in DATA=nowhere",
    ]


def test_every_step_runs_and_a_failed_one_is_told(tmp_path, capsys):
    works, fails = python("print('3 passed')"), python("raise SystemExit('no such kernel')")
    found, outcomes = ran(
        tmp_path,
        check.Step("fails", 20, fails),
        check.Step("works", 20, works, needs=r"\d passed"),
        check.Step("skips", 20, python("print('2 skipped')"), needs=r"\d passed"),
    )
    assert outcomes == ["failed (exit code 1)", "passed", "not here"]
    assert found.failed
    assert "no such kernel" in capsys.readouterr().out
    assert "| skips | not here |" in (tmp_path / "gpu_check.md").read_text()


def test_on_a_gpu_tests_that_were_all_skipped_have_failed(tmp_path):
    step = check.Step("skips", 20, python("print('2 skipped')"), needs=r"\d passed")
    gpu = NO_GPU | {"gpu": "NVIDIA H200", "chip": "H200", "driver": "580.1"}
    found, outcomes = ran(tmp_path, step, machine=gpu)
    assert outcomes == ["failed (nothing ran)"]
    assert found.failed
    text = (tmp_path / "gpu_check.md").read_text()
    assert "H200 (NVIDIA H200), driver 580.1" in text


def test_a_step_is_cut_off_with_what_it_started_and_the_rest_has_no_time(tmp_path):
    sleeps = "import subprocess, sys; subprocess.run([sys.executable, '-c', " + (
        "'import time; time.sleep(60)'])"
    )
    last = check.Step("last", 9, python(""))
    found, outcomes = ran(
        tmp_path, check.Step("sleeps", 1, python(sleeps)), last, last._replace(optional=True),
        seconds=7.5,
    )  # fmt: skip
    assert outcomes == ["cut off after 1 s", check.NO_TIME, check.NO_TIME]
    assert found.failed


def test_errors_are_judged_and_no_number_is_no_pass(tmp_path):
    file = tmp_path / "checks.jsonl"
    found = findings.Findings(file)
    for name, value in {"good": 0.1, "bad": 0.3, "none": float("nan")}.items():
        with found.checking(name, {"values": 0.2}) as errors:
            errors["values"] = value
    with found.checking("missing", {"values": 0.2}):
        pass
    with found.checking("raises", {"values": 0.2}):
        raise ValueError("no cuDNN\nhere")
    with file.open("a") as stream:
        stream.write('{"check": "cut o')
    rows = findings.read(file)
    assert [row["outcome"] for row in rows] == ["passed", *["failed"] * 4]
    assert rows[-1]["note"] == "ValueError: no cuDNN here"
    assert found.failed


def test_a_kernel_is_compared_at_every_shape_and_a_wrong_one_fails(tmp_path, monkeypatch):
    found = findings.Findings(tmp_path / "right.jsonl")
    attention.compare(found, SIZES["small"], "xla")
    assert not found.failed
    assert list(attention.shapes(SIZES["full"]).values()) == [(197, 197), (200, 197), (197, 147)]
    # Without cuDNN in the program nothing is compared.
    attention.compare(found, SIZES["small"], "auto")
    rows = findings.read(tmp_path / "right.jsonl")
    assert [row["outcome"] for row in rows] == ["passed"] * 3 + ["failed"] * 3
    assert "no kernel of cuDNN" in rows[-1]["note"]
    wrong = findings.Findings(tmp_path / "wrong.jsonl")
    monkeypatch.setattr(attention, "fused_row_attention", lambda q, k, v, *_: 1.1 * v)
    attention.compare(wrong, SIZES["small"], "xla")
    assert wrong.failed


@pytest.mark.slow
def test_a_step_is_compared_with_another_devices(tmp_path, monkeypatch):
    cpu = jax.devices("cpu")[0]
    found = findings.Findings(tmp_path / "same.jsonl")
    case = SIZES["small"].steps[0]
    steps.compare_step(found, case, cpu, cpu)
    assert not found.failed
    exact = steps.one_step(case, cpu)
    # The first is the CPU's, the second that of the device that is checked.
    results = iter([exact, exact | {"loss": 1.01 * exact["loss"]}, exact, exact])
    monkeypatch.setattr(steps, "one_step", lambda case, device: next(results))
    wrong = findings.Findings(tmp_path / "wrong.jsonl")
    steps.compare_step(wrong, case, cpu, cpu)
    outcomes = [row["outcome"] for row in findings.read(tmp_path / "wrong.jsonl")]
    assert outcomes == ["failed", "passed"]


def fake(name, how):
    return runner.Implementation(name, (sys.executable, str(FAKE), how))


def test_ours_comes_first_then_torch_and_the_page_has_both(tmp_path):
    cases = SIZES["small"].timed[1:2]
    sides = [fake(runner.OURS, "ours"), fake(fast.TORCH, "slow")]
    now = fast.time.monotonic()
    found = fast.time_cases(cases, cases, sides, 3, now + 100, tmp_path)
    assert found["cases"][0]["ratios"][fast.TORCH]["median"] == pytest.approx(2.0)
    assert found["rates"]["copy"] == 1e10
    record = {"mode": "fast", "sizes": "small", "date": "2026-12-01", "machine": NO_GPU,
              "steps": [], "checks": [], "trainings": {},
              "fast": json.loads((tmp_path / "fast.json").read_text())}  # fmt: skip
    text = check.page(record)
    assert "| 20 | 100 (100-100) | 200 (200-200) | 2.00 |" in text
    assert "mean nothing" in text


def test_what_no_time_is_left_for_is_named(tmp_path):
    cases = SIZES["small"].timed[1:3]
    clock = iter([0.0, 0.0, 0.0, 0.0, 95.0, *[95.0] * 20]).__next__
    sides = [fake(runner.OURS, "ours"), fake(fast.TORCH, "same")]
    found = fast.time_cases(cases, cases, sides, 2, 100.0, tmp_path, clock)
    assert len(found["cases"]) == 1
    assert found["not_reached"] == [f"{cases[1].name}: aver_jax", f"{cases[0].name}: torch_tuned"]


def test_torch_that_takes_too_long_was_not_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(fast, "_SHARE", 1.0)
    monkeypatch.setattr(fast, "_LEAST_TORCH", 0.5)
    cases = SIZES["small"].timed[1:2]
    sides = [fake(runner.OURS, "ours"), fake(fast.TORCH, "silent")]
    found = fast.time_cases(cases, cases, sides, 2, fast.time.monotonic() + 16, tmp_path)
    assert list(found["cases"][0]["sides"]) == [runner.OURS]
    (line,) = found["not_reached"]
    assert line.startswith(f"{cases[0].name}: torch_tuned, after ")


@pytest.mark.slow
def test_the_program_that_is_timed_is_the_one_that_is_counted(tmp_path):
    cases = SIZES["small"].timed[:3]
    now = fast.time.monotonic()
    found = fast.time_cases(cases, (), fast.sides(False), 2, now + 200, tmp_path)
    for record in found["cases"]:
        assert record["error"] is None
        predicted = record["costs"]["predicted"]
        assert 0 < predicted["floor"] <= predicted["seconds"]
        assert predicted["done"] > 0.5 * predicted["needed"] > 0
        assert record["costs"]["device_seconds"] > 0


@pytest.mark.parametrize(
    ("kind", "chip"),
    [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("NVIDIA L4", "l4"),
     ("NVIDIA H100 PCIe", None), ("NVIDIA L40S", None), ("NVIDIA A100-SXM4-80GB", "a100"),
     ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None), ("cpu", None)],
)  # fmt: skip
def test_rates_are_those_of_the_device(kind, chip):
    found = chip_of_device(kind)
    assert (found and found.name) == chip


def test_the_gpu_is_named():
    names = ["NVIDIA H100 80GB HBM3", "NVIDIA H200", "NVIDIA A100-SXM4-80GB", ""]
    assert [chip_name(name) for name in names] == ["H100", "H200", "other", "none"]


def test_trainings_come_last_and_only_with_a_dataset():
    without = check.steps_of("works", "full", Path("out"), "", "*")
    assert [step.name for step in without] == ["attention", "steps", "tests"]
    with_data = check.steps_of("works", "full", Path("out"), "data", "*")
    assert [step.name for step in with_data[3:]] == ["train_demo", "train_demo_device"]
    assert all(step.optional for step in with_data[3:])
    (step,) = check.steps_of("fast", "full", Path("out"), "", "*mrpn*")
    assert "*mrpn*" in step.words
