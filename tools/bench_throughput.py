"""The same work in aver_jax and in PyTorch, in turn, on this machine: JSON, a table and a plot.

    python tools/bench_throughput.py --set reduced --out bench [--minutes 7] [--case PATTERN]

Needs torch and transformers beside aver_jax (`make parity` sets such an environment up). Every side
works in a process of its own, one at a time, each round in another order; its answers to the same
batch are compared with aver_jax' before it is timed. A case that fails is named at the end, and the
exit code is 1.

Sides: torch_tuned, what an expert would write; torch_transformers, transformers' own TimeSformer as
its users run it; torch_hooks, relevance by hooks, one clip at a time, as public tools do it.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

from aver_jax.bench.cases import Case
from aver_jax.bench.cli import (
    add_choice_of_cases,
    chosen_cases,
    ended,
    settings_of,
    words_of,
)
from aver_jax.bench.pages import write_benchmark
from aver_jax.bench.runner import Side, our_side
from aver_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
# One clip after the other takes its time: so many of a batch tell the rate.
HOOK_CLIPS = 4
WORKER = f"{sys.executable} -m tools.baseline.worker"


def torch_sides(worker: str) -> list[Side]:
    """Returns the sides in PyTorch.

    Args:
      worker: command of their worker.
    """

    def is_timesformer(case: Case) -> bool:
        return case.model.get("name") == "timesformer"

    command = tuple(worker.split())
    return [
        Side("torch_tuned", command, folder=ROOT),
        Side(
            "torch_transformers",
            command,
            takes=lambda case: is_timesformer(case) and case.task in ("train", "inference"),
            folder=ROOT,
        ),
        Side(
            "torch_hooks",
            command,
            takes=lambda case: is_timesformer(case) and case.task == "relevance",
            folder=ROOT,
            clips=HOOK_CLIPS,
        ),
    ]


def main(argv: list[str] | None = None) -> int:
    """Writes results.json, table.md and plot.png; 1 if a case failed, 2 for wrong flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_choice_of_cases(parser)
    parser.add_argument(
        "--sides",
        default="torch_tuned,torch_transformers,torch_hooks",
        help="compared with aver_jax, comma-separated",
    )
    parser.add_argument("--worker", default=WORKER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        return _compare(args, parser)
    except UserError as error:
        print(f"bench_throughput: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench_throughput: interrupted", file=sys.stderr)
        return 130


def _compare(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    cases = chosen_cases(args)
    known = {side.name: side for side in torch_sides(args.worker)}
    sides = [our_side()]
    for name in filter(None, args.sides.split(",")):
        if name not in known:
            raise UserError(f"--sides has {name!r}; there are: {', '.join(known)}")
        sides.append(known[name])
    if args.worker == WORKER and importlib.util.find_spec("torch") is None:
        raise UserError(
            "torch is not installed here; `make bench` sets up an environment that has it"
        )
    with tempfile.TemporaryDirectory(prefix="aver_bench_") as scratch:
        out = args.out or Path(scratch)
        settings = settings_of(args, cases, out, Path(scratch))
        command = words_of(args, parser, "python tools/bench_throughput.py")
        failed = write_benchmark(cases, sides, settings, out, args.minutes, command)
        print((out / "table.md").read_text())
    return ended("bench_throughput", args.out, failed)


if __name__ == "__main__":
    sys.exit(main())
