"""Times aver_jax on this machine: clips/s, share of the matmul peak, the floor, memory, start-up.

Cases come in sets: "reduced" for two CPU cores, "full" for an accelerator, "mini" to see that it
works. With --sweep, how cost grows instead. `tools/bench_throughput.py` of the repository compares
with PyTorch.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aver_jax.bench.cases import SETS, SWEEPS, SWEPT, Case, matching
from aver_jax.errors import UserError

if TYPE_CHECKING:
    from aver_jax.bench.runner import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver bench`."""
    add_choice_of_cases(parser)
    parser.add_argument(
        "--sweep",
        default="",
        metavar="KIND[,KIND]",
        help=f"how cost grows with one of {', '.join(SWEEPS)}: of the set's own small training, "
        "or of the first that --case matches",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="changes a field of the model of every case, e.g. remat=none; repeatable",
    )


def add_choice_of_cases(parser: argparse.ArgumentParser) -> None:
    """Declares what the comparison with other code takes too: cases, repeats, limits, folders."""
    parser.add_argument("--set", default="reduced", choices=tuple(SETS), help="named cases")
    parser.add_argument(
        "--case", default="*", metavar="PATTERN", help="of these, those whose names match"
    )
    parser.add_argument("--repeats", type=int, default=15, help="rounds of each case, at most")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="share this time out over the cases; 0: no limit"
    )
    parser.add_argument("--out", type=Path, help="folder for results.json, table.md and plot.png")
    parser.add_argument("--data", type=Path, help="prepared dataset for the input; else made up")
    parser.add_argument("--threads", type=int, default=2, help="that make batches")


def run(args: argparse.Namespace) -> int:
    """Runs `aver bench`; 1 if a case failed."""
    kinds = [kind for kind in args.sweep.split(",") if kind]
    chosen = chosen_cases(args)
    if kinds and args.case == "*":
        chosen = [SWEPT[args.set]]
    cases = [with_fields(case, args.model) for case in chosen]
    for kind in kinds:
        if kind not in SWEEPS:
            raise UserError(f"--sweep {kind!r} is not known; there are: {', '.join(SWEEPS)}")
    if kinds and args.minutes:
        raise UserError("--minutes is shared out over cases; a sweep takes none: leave it out")
    if args.model:
        _check_models(cases)
    # Imports numpy, which `aver bench --help` need not wait for.
    from aver_jax.bench.pages import write_benchmark, write_sweeps
    from aver_jax.bench.runner import our_side

    with tempfile.TemporaryDirectory(prefix="aver_bench_") as scratch:
        out = args.out or Path(scratch)
        settings = settings_of(args, cases, out, Path(scratch))
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        command = words_of(args, parser, "aver bench")
        if kinds:
            failed = write_sweeps(kinds, cases, settings, out, command)
        else:
            sides = [our_side()]
            failed = write_benchmark(cases, sides, settings, out, args.minutes, command)
        print((out / ("sweeps.md" if kinds else "table.md")).read_text())
    return ended("aver bench", args.out, failed)


def chosen_cases(args: argparse.Namespace) -> list[Case]:
    """Returns the cases that the flags choose.

    Raises:
      UserError: none, or flags out of range.
    """
    for name in ("repeats", "threads"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}, expected at least 1")
    if args.minutes < 0:
        raise UserError(f"--minutes is {args.minutes:g}, expected 0 (no limit) or more")
    if args.data and not (args.data / "dataset_info.json").is_file():
        raise UserError(f"{args.data} holds no dataset; give the folder of an `aver prepare --out`")
    return matching(SETS[args.set], args.case)


def with_fields(case: Case, words: list[str]) -> Case:
    """Returns a case whose model has other fields, by "FIELD=VALUE"; cases without a model stay."""
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
    """Raises UserError for fields that a model does not have or take, before anything starts."""
    from aver_jax.bench.worker.inputs import model_of_case

    for case in cases:
        try:
            if case.model:
                model_of_case(case)
        except (TypeError, ValueError) as error:
            raise UserError(f"--model: {case.name}: {error}") from error


def settings_of(
    args: argparse.Namespace, cases: list[Case], out: Path, scratch: Path
) -> "Settings":
    """Returns how the cases are run; makes up a dataset in `scratch` where one is needed."""
    from aver_jax.bench.runner import Settings

    data = args.data
    if data is None and any(case.task == "input" for case in cases):
        from aver_jax.bench.worker.inputs import write_dataset

        data = scratch / "data"
        write_dataset(data)
    return Settings(args.repeats, out / "logs", data and data.resolve(), args.threads)


def words_of(args: argparse.Namespace, parser: argparse.ArgumentParser, command: str) -> list[str]:
    """Returns the words of a command line that differ from the defaults, for the record."""
    words = command.split()
    for name, value in vars(args).items():
        if value != parser.get_default(name) and name in vars(parser.parse_args([])):
            for item in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(item)]
    return words


def ended(command: str, out: Path | None, failed: list[str]) -> int:
    """Says where results are and what failed, and returns the exit code."""
    if out:
        print(f"results: {out}")
    for line in failed:
        print(f"{command}: failed: {line}", file=sys.stderr)
    return 1 if failed else 0
