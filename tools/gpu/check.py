"""Runs the steps of a mode of tools/gpu_check.sh, each with a limit, and writes down what it finds.

    python -m tools.gpu.check works|fast --seconds 290 --out DIR

DIR/gpu_check.json and DIR/gpu_check.md are written when a step ends and while it runs; what a step
says is in DIR/NAME.log. Imports no jax, so that the GPU belongs to the steps. SIZES, DATA and CASES
are those of tools/gpu_check.sh.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aver_jax.runs.metrics_log import read_metrics
from aver_jax.runtime.atomic_files import write_whole
from tools.gpu import findings
from tools.gpu.machine import line_of, machine
from tools.gpu.page import page

MODES = ("works", "fast")
NO_TIME = "no time was left"
# Seconds: no step starts without as many left, and what a killed one needs to end.
_LEAST, _GRACE = 5.0, 2.0


class Step(NamedTuple):
    """A command with a limit.

    Attributes:
      name: of the step and its log.
      seconds: that it may take.
      words: of the command, after the interpreter; "{left}" becomes the seconds it may take.
      needs: what its log must match to have passed, "" for anything.
      optional: whether "no time was left" is no failure.
    """

    name: str
    seconds: float
    words: Sequence[str]
    needs: str = ""
    optional: bool = False


def steps_of(mode: str, sizes: str, out: Path, data: str, cases: str) -> list[Step]:
    """Returns the steps of a mode, the most important first.

    Args:
      mode: one of `MODES`.
      sizes: a key of `tools.gpu.sizes.SIZES`.
      out: the folder of the results.
      data: a prepared dataset, "" for none.
      cases: glob of the cases to time.
    """
    if mode == "fast":
        words = ("-m", "tools.gpu.fast", "--sizes", sizes, "--out", f"{out}", "--cases", cases)
        return [Step("fast", float("inf"), (*words, "--seconds", "{left}"))]
    checks = ("--sizes", sizes, "--out", f"{out / 'checks.jsonl'}")
    pytest = ("-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "-W", "default",
              "-p", "no:cacheprovider")  # fmt: skip
    steps = [
        Step("attention", 70, ("-m", "tools.gpu.attention", *checks)),
        Step("steps", 150, ("-m", "tools.gpu.steps", *checks)),
        Step("tests", 100, pytest, needs=r"\d passed"),
    ]
    return steps + [
        Step(name, 60, words, optional=True) for name, words in _trainings(out, data).items()
    ]


def _trainings(out: Path, data: str) -> dict[str, Sequence[str]]:
    """Returns short real trainings by name; none without a dataset."""
    if not data:
        return {}

    def train(name: str, *more: str) -> Sequence[str]:
        words = ("-m", "aver_jax", "train", "--config", "timesformer.py:size=demo")
        fields = {"data.path": data, "data.protocol": "synthetic_fifths", "epochs": "5.0"}
        workdir = ("--workdir", f"{out / 'runs' / name}")
        return (*words, *workdir, *(f"--config.{k}={v}" for k, v in fields.items()), *more)

    in_memory = ("--config.data.cache=device", "--config.data.cache_frames=16")
    return {
        "train_demo": train("train_demo"),
        "train_demo_device": train(
            "train_demo_device", *in_memory, "--config.steps_per_dispatch=4"
        ),
    }


class Check:
    """The steps of a mode, one after the other.

    Args:
      mode, sizes: of the check.
      out: the folder of the results.
      seconds: for everything.
      found: of `machine`.

    Attributes:
      failed: whether a step failed.
    """

    def __init__(self, mode: str, sizes: str, out: Path, seconds: float, found: Mapping) -> None:
        self._out, self._end = out, time.monotonic() + seconds
        self._process: subprocess.Popen | None = None
        self._steps: list[dict[str, Any]] = []
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self._record = {"mode": mode, "sizes": sizes, "date": today, "machine": found}
        self.failed = False

    def run(self, steps: Sequence[Step]) -> None:
        """Runs the steps."""
        for step in steps:
            left = self._end - _GRACE - time.monotonic()
            began, entry = time.monotonic(), {"step": step.name, "outcome": "running"}
            self._steps.append(entry | {"seconds": 0.0})
            outcome = NO_TIME if left < _LEAST else self._outcome(step, min(step.seconds, left))
            self._steps[-1] = entry | {"outcome": outcome, "seconds": time.monotonic() - began}
            missing = outcome == NO_TIME and step.optional
            good = outcome in (findings.PASSED, findings.NOT_HERE) or missing
            self.failed |= not good
            self.save()
            print(f"{step.name}: {outcome}, {time.monotonic() - began:.0f} s", flush=True)
            if not good:
                print("\n".join(self._log(step).splitlines()[-15:]), flush=True)

    def _outcome(self, step: Step, seconds: float) -> str:
        words = [word.replace("{left}", f"{seconds - 1:.0f}") for word in step.words]
        end, saved = time.monotonic() + seconds, time.monotonic()
        with (self._out / f"{step.name}.log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=log, start_new_session=True
            )
        while self._process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            if time.monotonic() - saved > 3:
                saved = time.monotonic()
                self.save()
        code = self._process.poll()
        self.stop()
        if code is None:
            return f"cut off after {seconds:.0f} s"
        if code:
            return f"failed (exit code {code})"
        if step.needs and not re.search(step.needs, self._log(step)):
            gpu = self._record["machine"]["gpu"]
            return "failed (nothing ran)" if gpu else findings.NOT_HERE
        return findings.PASSED

    def stop(self) -> None:
        """Ends the running step with all that it started."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def save(self) -> None:
        """Writes both files."""
        fast = self._out / "fast.json"
        record = self._record | {
            "steps": self._steps,
            "checks": findings.read(self._out / "checks.jsonl"),
            "fast": json.loads(fast.read_text()) if fast.exists() else None,
            "trainings": {
                run.parent.name: found
                for run in sorted(self._out.glob("runs/*/metrics.jsonl"))
                if (found := training_rates(run))
            },
        }
        write_whole(self._out / "gpu_check.json", json.dumps(record, indent=1) + "\n")
        try:
            text = page(record)
        except Exception as error:  # the steps go on, and the JSON has everything
            text = f"gpu_check.json could not be laid out: {error!r}\n"
        write_whole(self._out / "gpu_check.md", text)

    def _log(self, step: Step) -> str:
        file = self._out / f"{step.name}.log"
        return file.read_text(errors="replace") if file.exists() else ""


def training_rates(metrics: Path) -> dict[str, float]:
    """Returns medians over a run's training windows, the first (it compiles) left out."""
    records = [r for r in read_metrics(metrics) if "clips_per_second" in r]
    if len(records) < 2:
        return {}
    return {
        "clips_per_second": statistics.median(r["clips_per_second"] for r in records[1:]),
        "data_wait": statistics.median(r["data_wait"] for r in records[1:]),
        "final_loss": records[-1]["train/loss"],
        "steps": records[-1]["step"],
    }


def main(argv: list[str] | None = None) -> int:
    """Runs a mode; 1 if a step failed, 2 for a wrong call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    sizes, data = os.environ.get("SIZES", "full"), os.environ.get("DATA", "")
    found = machine()
    if wrong := _wrong(sizes, data, found, args.out):
        print(f"gpu_check: {wrong}", file=sys.stderr)
        return 2
    print(line_of(found), flush=True)
    # Of this machine's platforms the CPU is needed as well: it is compared with.
    os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu" if found["gpu"] else "cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    args.out.mkdir(parents=True, exist_ok=True)
    check = Check(args.mode, sizes, args.out.resolve(), args.seconds, found)

    def cut_off(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, cut_off)
    try:
        cases = os.environ.get("CASES", "*")
        check.run(steps_of(args.mode, sizes, args.out.resolve(), data, cases))
    finally:
        check.stop()
        check.save()
    print(f"results: {args.out / 'gpu_check.md'}")
    return int(check.failed)


def _wrong(sizes: str, data: str, found: Mapping[str, Any], out: Path) -> str:
    """Returns one line of what is wrong with a call, "" if nothing is."""
    from tools.gpu.sizes import SIZES

    if sizes not in SIZES:
        return f"SIZES is {sizes!r}; expected {' or '.join(SIZES)}"
    if found["gpu"] is None and sizes == "full":
        return "no NVIDIA GPU is here; SIZES=small rehearses on a CPU"
    if data and not Path(data, "dataset_info.json").is_file():
        return f"no prepared dataset in DATA={data}; leave it out, or give one"
    if (out / "gpu_check.json").exists():
        return f"{out} holds the results of another call; remove it, or set OUT"
    return ""


if __name__ == "__main__":
    sys.exit(main())
