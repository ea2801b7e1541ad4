"""Times aver_jax on this machine: clips/s, share of the matmul peak, roofline bound, memory.

--set chooses the cases: "reduced" for two CPU cores, "full" for an accelerator, "mini" to test that
everything works. --sweep shows how the cost of training grows instead.
`tools/bench_throughput.py` in the repository compares with PyTorch.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aver_jax.bench.cases import SETS, SWEEPS, SWEPT, Case, matching_cases
from aver_jax.errors import UserError

if TYPE_CHECKING:
    from aver_jax.bench.runner import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver bench`."""
    add_case_arguments(parser)
    parser.add_argument(
        "--sweep",
        default="",
        metavar="KIND[,KIND]",
        help=f"time training at several values of {', '.join(SWEEPS)}; starts from the first "
        "training case that --case matches, by default a small one",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set a model field in every case, e.g. remat=none; repeatable",
    )


def add_case_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that comparisons share: cases, repeats, limits, folders."""
    # `command_words` compares with the defaults.
    parser.set_defaults(parser=parser)
    parser.add_argument(
        "--set", default="reduced", choices=tuple(SETS), help="cases to run (default: %(default)s)"
    )
    parser.add_argument(
        "--case",
        default="*",
        metavar="PATTERN",
        help="run only cases whose name matches this glob or contains this text",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=15,
        help="maximum timing rounds per case (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=0.0,
        help="time limit for all cases together; 0 means no limit (default)",
    )
    parser.add_argument("--out", type=Path, help="folder for JSON, tables and plots")
    parser.add_argument(
        "--data", type=Path, help="prepared dataset for the input case (default: synthetic clips)"
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="data-loading threads (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs `aver bench`; returns 1 if a case failed, else 0."""
    kinds = [kind for kind in args.sweep.split(",") if kind]
    chosen = chosen_cases(args)
    if kinds and args.case == "*":
        chosen = [SWEPT[args.set]]
    cases = [with_fields(case, args.model) for case in chosen]
    for kind in kinds:
        if kind not in SWEEPS:
            raise UserError(f"unknown --sweep {kind!r}; choose from: {', '.join(SWEEPS)}")
    if kinds and args.minutes:
        raise UserError("--minutes does not apply to --sweep; leave it out")
    if args.model:
        _check_models(cases)
    # Here, so that `aver bench --help` does not wait for jax.
    from aver_jax.bench.pages import write_benchmark, write_sweeps
    from aver_jax.bench.runner import our_implementation

    with tempfile.TemporaryDirectory(prefix="aver_bench_") as scratch:
        out = args.out or Path(scratch)
        settings = run_settings(args, cases, out, Path(scratch))
        command = command_words(args, "aver bench")
        if kinds:
            failed = write_sweeps(kinds, cases, settings, out, command)
        else:
            implementations = [our_implementation()]
            failed = write_benchmark(cases, implementations, settings, out, args.minutes, command)
        print((out / ("sweeps.md" if kinds else "table.md")).read_text())
    return report_end("aver bench", args.out, failed)


def chosen_cases(args: argparse.Namespace) -> list[Case]:
    """Returns the cases that the flags choose.

    Raises:
      UserError: no case matches, or a flag is out of range.
    """
    for name in ("repeats", "threads"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}, expected at least 1")
    if args.minutes < 0:
        raise UserError(f"--minutes is {args.minutes:g}, expected 0 (no limit) or more")
    if args.data and not (args.data / "dataset_info.json").is_file():
        raise UserError(f"{args.data} holds no dataset; give the folder of an `aver prepare --out`")
    return matching_cases(SETS[args.set], args.case)


def with_fields(case: Case, words: list[str]) -> Case:
    """Returns the case with model fields set by "FIELD=VALUE"; unchanged if it has no model."""
    if not case.model:
        return case
    fields = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise UserError(f"--model {word!r} is not understood; expected FIELD=VALUE")
        try:
            fields[name] = json.loads(text)
        except ValueError:
            fields[name] = text
    name = "_".join([case.name, *words])
    return dataclasses.replace(case, name=name, model=case.model | fields)


def _check_models(cases: list[Case]) -> None:
    """Raises UserError for fields or values that a model does not have, before anything starts."""
    from aver_jax.bench.worker.inputs import case_model

    for case in cases:
        try:
            if case.model:
                case_model(case)
        except (TypeError, ValueError) as error:
            raise UserError(f"--model: {case.name}: {error}") from error


def run_settings(
    args: argparse.Namespace, cases: list[Case], out: Path, scratch: Path
) -> "Settings":
    """Returns the settings of a run; writes a synthetic dataset into `scratch` if one is needed."""
    from aver_jax.bench.runner import Settings

    data = args.data
    if data is None and any(case.task == "input" for case in cases):
        from aver_jax.bench.worker.inputs import write_synthetic_dataset

        data = scratch / "data"
        write_synthetic_dataset(data)
    return Settings(args.repeats, out / "logs", data and data.resolve(), args.threads)


def command_words(args: argparse.Namespace, command: str) -> list[str]:
    """Returns the command with the flags that differ from their defaults, for the record."""
    words = command.split()
    for name, value in vars(args).items():
        if value != args.parser.get_default(name):
            for item in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(item)]
    return words


def report_end(command: str, out: Path | None, failed: list[str]) -> int:
    """Prints where the results are and what failed; returns the exit code."""
    if out:
        print(f"results: {out}")
    for line in failed:
        print(f"{command}: failed: {line}", file=sys.stderr)
    return 1 if failed else 0
