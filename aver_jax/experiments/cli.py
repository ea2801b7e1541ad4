"""Many trainings compared: a table of networks over folds and seeds, or a study of fuzzy data."""

import argparse
import shlex
import sys
from pathlib import Path

# The studies import jax: only when one is run, so that --help is quick.
_STUDIES = {
    "mrpn_table": "every network on every fold of a protocol, in the layout of the MRPN tables",
    "fuzzy_study": "networks on rendered corpora with more and more unclear clips",
    "level_study": "the audio branch and N2, with and without one level of the sound, on clips at "
    "other levels",
}
_NETWORKS = "audio,video,late,n0,n1,n2"
_AGGREGATORS = "lstm,bilstm,transformer,mean"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the studies of `aver experiments` and their flags."""
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    for name, text in _STUDIES.items():
        study = studies.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog="Any other field of the config can be set for all trainings: "
            "--config.epochs=10.0 --config.data.path=DIR. The same command goes on with a study "
            "that was stopped. Exit code 3: some trainings failed; the page names them.",
            allow_abbrev=False,
        )
        add = study.add_argument
        add(
            "--config",
            required=True,
            metavar="SPEC",
            help="experiment without network, aggregator and fold: mrpn.py:size=small",
        )
        add("--workdir", required=True, type=Path, help="folder of the study")
        add("--page", type=_page, metavar="FILE.md", help="also write the results page there")
        add("--seeds", type=_seeds, default="0", help="seeds of training, as 0,1 (default: 0)")
        add(
            "--workers",
            type=int,
            default=1,
            help="processes, each with its share of the CPU cores; for small networks on CPU "
            "(default: 1)",
        )
        flags = {
            "mrpn_table": _table_flags,
            "fuzzy_study": _study_flags,
            "level_study": _level_flags,
        }
        flags[name](add)


def _table_flags(add) -> None:
    add("--networks", type=_names, default=_NETWORKS, help=f"some of {_NETWORKS} (default: all)")
    add(
        "--aggregators",
        type=_names,
        default="lstm",
        help=f"some of {_AGGREGATORS} (default: lstm)",
    )
    add("--folds", default="all", help="folds of the protocol, as 1,2 (default: all)")
    add(
        "--time-augmentation",
        choices=("on", "both"),
        default="on",
        help="both: also train audio, video and n0 on whole clips, with the first aggregator",
    )
    add("--note", default="", help="a line about the data, for the page")


def _study_flags(add) -> None:
    add("--networks", type=_names, default=_NETWORKS, help=f"some of {_NETWORKS} (default: all)")
    add("--aggregator", default="lstm", help=f"one of {_AGGREGATORS} (default: lstm)")
    add("--folds", default="all", help="folds of the protocol, as 1,2 (default: all)")
    text = "shares of fuzzy clips, half of them in the face, half in the voice (default: 0,0.3,0.6)"
    add("--shares", type=_shares, default="0,0.3,0.6", help=text)
    text = "shares of clips whose face and voice conflict (default: 0.3,0.6)"
    add("--conflicts", type=_shares, default="0.3,0.6", help=text)
    add("--clips", type=int, default=360, help="clips of each corpus (default: 360)")
    add("--actors", type=int, default=20, help="actors of each corpus (default: 20)")
    add("--size", type=int, default=128, help="side of the rendered frames (default: 128)")
    add("--fps", type=int, default=12, help="frames per second (default: 12)")
    add("--seconds", type=float, default=1.6, help="mean length of a clip (default: 1.6)")
    add("--crop", type=int, default=64, help="side of the stored face crops (default: 64)")
    add("--corpus-seed", type=int, default=0, help="seed of all that is rendered (default: 0)")


def _level_flags(add) -> None:
    add("--folds", default="all", help="folds of the protocol, as 1,2 (default: all)")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs a study and prints where its page is."""
    if args.study == "mrpn_table":
        from aver_jax.experiments.mrpn_table import run_study
    elif args.study == "level_study":
        from aver_jax.experiments.level_study import run_study
    else:
        from aver_jax.experiments.fuzzy_study import run_study

    words = [*command_words(args), *map(_placed, overrides)]
    page, failures = run_study(args, tuple(overrides), shlex.join(["aver", "experiments", *words]))
    for path in (args.workdir / "page.md", *([args.page] if args.page else [])):
        page.write(path)
        print(f"page: {path}")
    for cell, reason in failures:
        print(f"failed: {cell.name}: {reason}", file=sys.stderr)
    # As of aver prepare: done, but for some.
    return 3 if failures else 0


def command_words(args: argparse.Namespace) -> list[str]:
    """Returns the words that repeat a study anywhere: placeholders stand for folders.

    Where a page goes and the number of processes are no part of a study.
    """
    words = [args.study]
    for name, value in vars(args).items():
        if name in ("study", "page", "workers", "note"):
            continue
        values = value if isinstance(value, tuple) else (value,)
        text = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        if name == "workdir":
            text = "WORKDIR"
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


def _page(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".md":
        raise argparse.ArgumentTypeError(f"{text!r}, expected a file that ends with .md")
    return path


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, text.split(","))))


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}, expected numbers from 0 on, as in 0,1,2")
    return seeds


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(sorted({float(word) for word in text.split(",") if word}))
    except ValueError:
        shares = (-1.0,)
    if not all(0 <= share <= 1 for share in shares):
        raise argparse.ArgumentTypeError(f"{text!r}, expected shares from 0 to 1, as in 0,0.3")
    return shares
