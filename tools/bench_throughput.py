"""Compares the throughput of aver_jax and PyTorch on this machine: JSON, a table and a plot.

    python tools/bench_throughput.py --set reduced --out bench [--minutes 7] [--case PATTERN]

Needs torch and transformers beside aver_jax (`make parity` sets up such an environment). Every
implementation runs in its own process, one at a time, and the order is reversed every round. Its
outputs on the same batch are compared with those of aver_jax before it is timed. A case that fails
is named at the end, and the exit code is 1.

Implementations: torch_tuned, what an expert would write; torch_transformers, transformers'
TimeSformer as its users run it; torch_hooks, relevance by hooks, one clip at a time, as in public
tools.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

from aver_jax.bench.cases import Case
from aver_jax.bench.cli import (
    add_case_arguments,
    chosen_cases,
    command_words,
    report_end,
    run_settings,
)
from aver_jax.bench.pages import write_benchmark
from aver_jax.bench.runner import Implementation, our_implementation
from aver_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# Clips per call of torch_hooks, which are enough to measure its rate.
HOOK_CLIPS = 4
WORKER = f"{sys.executable} -m tools.baseline.worker"


def torch_implementations(worker: str) -> list[Implementation]:
    """Returns the implementations in PyTorch, whose worker is started by a command."""

    def is_timesformer(case: Case) -> bool:
        return case.model.get("name") == "timesformer"

    command = tuple(worker.split())
    return [
        Implementation("torch_tuned", command, folder=ROOT),
        Implementation(
            "torch_transformers",
            command,
            supports=lambda case: is_timesformer(case) and case.task in ("train", "inference"),
            folder=ROOT,
        ),
        Implementation(
            "torch_hooks",
            command,
            supports=lambda case: is_timesformer(case) and case.task == "relevance",
            folder=ROOT,
            clips=HOOK_CLIPS,
        ),
    ]


def main(argv: list[str] | None = None) -> int:
    """Writes results.json, table.md and plot.png; 1 if a case failed, 2 for wrong flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_case_arguments(parser)
    parser.add_argument(
        "--sides",
        default="torch_tuned,torch_transformers,torch_hooks",
        help="implementations to compare with aver_jax, comma-separated (default: %(default)s)",
    )
    parser.add_argument("--worker", default=WORKER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        return _compare(args)
    except UserError as error:
        print(f"bench_throughput: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench_throughput: interrupted", file=sys.stderr)
        return 130


def _compare(args: argparse.Namespace) -> int:
    cases = chosen_cases(args)
    known = {each.name: each for each in torch_implementations(args.worker)}
    implementations = [our_implementation()]
    for name in filter(None, args.sides.split(",")):
        if name not in known:
            raise UserError(f"unknown --sides {name!r}; choose from: {', '.join(known)}")
        implementations.append(known[name])
    if args.worker == WORKER and importlib.util.find_spec("torch") is None:
        raise UserError(
            "torch is not installed here; `make bench` sets up an environment that has it"
        )
    with tempfile.TemporaryDirectory(prefix="aver_bench_") as scratch:
        out = args.out or Path(scratch)
        settings = run_settings(args, cases, out, Path(scratch))
        command = command_words(args, "python tools/bench_throughput.py")
        failed = write_benchmark(cases, implementations, settings, out, args.minutes, command)
        print((out / "table.md").read_text())
    return report_end("bench_throughput", args.out, failed)


if __name__ == "__main__":
    sys.exit(main())
