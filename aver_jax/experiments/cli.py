"""Many trainings compared, or what a trained model's relevance maps are worth."""

import argparse
import dataclasses
import importlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from aver_jax.errors import UserError
from aver_jax.experiments import study_flags
from aver_jax.experiments.relevance import run_flags, trust_flags


@dataclasses.dataclass(frozen=True)
class _Experiment:
    """One command of `aver experiments`.

    Attributes:
      text: what it does, for --help.
      add_flags: takes a parser's `add_argument`.
      epilog: after the flags of --help.
      trains: whether it is a study, whose module has `run_study(args, overrides, command)` and
        gives a page and the trainings that failed; any other has `run_experiment(args, command)`
        and gives a page.
      module: of `experiments`, a study's, or of `experiments.relevance`; "": the command's name.
    """

    text: str
    add_flags: Callable[[Callable[..., object]], None]
    epilog: str
    trains: bool
    module: str = ""


def _study(text: str, add_flags: Callable[[Callable[..., object]], None]) -> _Experiment:
    return _Experiment(text, add_flags, study_flags.EPILOG, trains=True)


def _of_run(
    text: str, add_flags: Callable[[Callable[..., object]], None], module: str = ""
) -> _Experiment:
    return _Experiment(text, add_flags, run_flags.EPILOG, trains=False, module=module)


# Name, and module -> what it is. The modules import jax: only when one is run, so that --help is
# quick.
_EXPERIMENTS = {
    "mrpn_table": _study(
        "every network on every fold of a protocol, in the layout of the MRPN tables",
        study_flags.table_flags,
    ),
    "fuzzy_study": _study(
        "networks on rendered corpora with more and more unclear clips", study_flags.fuzzy_flags
    ),
    "level_study": _study(
        "the audio branch and N2, with and without one level of the sound, on clips at other "
        "levels",
        study_flags.level_flags,
    ),
    "occlusion": _of_run(
        "accuracy with the most or the least important patches and frames occluded",
        run_flags.occlusion_flags,
    ),
    "faithfulness": _of_run(
        "whether the model depends on what each method marks: deletion, insertion, ROAD and others",
        run_flags.faithfulness_flags,
    ),
    "truth": _of_run(
        "whether each method finds the region or the time that is known to carry the label",
        trust_flags.truth_flags,
    ),
    "sanity": _of_run(
        "whether maps change with the model's parameters and with the class asked for",
        trust_flags.sanity_flags,
    ),
    "trends": _of_run(
        "the mean relevance map and the relevance of every frame, emotion by emotion",
        run_flags.trends_flags,
    ),
    "parts": _of_run(
        "confusions with eyes, nose and mouth occluded, in every combination",
        run_flags.parts_flags,
        module="facial_parts",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the experiments and their flags."""
    commands = parser.add_subparsers(dest="study", required=True, metavar="EXPERIMENT")
    for name, experiment in _EXPERIMENTS.items():
        text = experiment.text
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=experiment.epilog,
            allow_abbrev=False,
        )
        experiment.add_flags(command.add_argument)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs an experiment and prints where its page is."""
    experiment = _EXPERIMENTS[args.study]
    if overrides and not experiment.trains:
        raise UserError(
            f"aver experiments {args.study} does not know {' '.join(overrides)}; "
            f"see aver experiments {args.study} --help"
        )
    name = experiment.module or args.study
    folder = "experiments" if experiment.trains else "experiments.relevance"
    module = importlib.import_module(f"aver_jax.{folder}.{name}")
    words = [*command_words(args), *map(_placed, overrides)]
    command = shlex.join(["aver", "experiments", *words])
    failures = []
    if experiment.trains:
        page, failures = module.run_study(args, tuple(overrides), command)
    else:
        page = module.run_experiment(args, command)
    output = args.workdir if experiment.trains else args.out
    for path in (output / "page.md", *([args.page] if args.page else [])):
        page.write(path)
        print(f"page: {path}")
    for cell, reason in failures:
        print(f"failed: {cell.name}: {reason}", file=sys.stderr)
    # As of aver prepare: done, but for some.
    return 3 if failures else 0


def command_words(args: argparse.Namespace) -> list[str]:
    """Returns the words that repeat an experiment anywhere: placeholders stand for folders.

    Where a page goes, the number of processes and the clips at a time are no part of it.
    """
    words = [args.study]
    for name, value in vars(args).items():
        if name in ("study", "page", "workers", "note", "batch_size") or value is None:
            continue
        if name == "run":
            words.append("RUN")
            continue
        values = value if isinstance(value, tuple) else (value,)
        text = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        if name in ("workdir", "out", "data"):
            text = name.upper()
        elif name == "config":
            file, colon, argument = text.partition(":")
            text = f"{Path(file).name}{colon}{argument}"
        words += [f"--{name.replace('_', '-')}", text]
    return words


def _placed(word: str) -> str:
    """Returns an override with a placeholder for its folder, if it names one."""
    field, equals, _ = word.partition("=")
    if field == "--config.data.path":
        return f"{field}{equals}DATA"
    if field.startswith("--config.init."):
        return f"{field}{equals}RUN"
    return word
