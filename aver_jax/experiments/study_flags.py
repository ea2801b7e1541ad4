"""Flags of the studies: many trainings of one config, compared; they share --config, --workdir."""

import argparse
from collections.abc import Callable
from pathlib import Path

from aver_jax.experiments.page_flag import add_page

NETWORKS = "audio,video,late,n0,n1,n2"
AGGREGATORS = "lstm,bilstm,transformer,mean"
EPILOG = (
    "Any other field of the config can be set for all trainings: "
    "--config.epochs=10.0 --config.data.path=DIR. The same command goes on with a study "
    "that was stopped. Exit code 3: some trainings failed; the page names them."
)


def table_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `mrpn_table`."""
    _add_common(add)
    add("--networks", type=_names, default=NETWORKS, help=f"some of {NETWORKS} (default: all)")
    add(
        "--aggregators",
        type=_names,
        default="lstm",
        help=f"some of {AGGREGATORS} (default: lstm)",
    )
    add("--folds", default="all", help="folds of the protocol, as 1,2 (default: all)")
    add(
        "--time-augmentation",
        choices=("on", "both"),
        default="on",
        help="both: also train audio, video and n0 on whole clips, with the first aggregator",
    )
    add("--note", default="", help="a line about the data, for the page")


def fuzzy_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `fuzzy_study`."""
    _add_common(add)
    add("--networks", type=_names, default=NETWORKS, help=f"some of {NETWORKS} (default: all)")
    add("--aggregator", default="lstm", help=f"one of {AGGREGATORS} (default: lstm)")
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


def level_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `level_study`."""
    _add_common(add)
    add("--folds", default="all", help="folds of the protocol, as 1,2 (default: all)")


def _add_common(add: Callable[..., object]) -> None:
    add(
        "--config",
        required=True,
        metavar="SPEC",
        help="experiment without network, aggregator and fold: mrpn.py:size=small",
    )
    add("--workdir", required=True, type=Path, help="folder of the study")
    add_page(add)
    add("--seeds", type=_seeds, default="0", help="seeds of training, as 0,1 (default: 0)")
    add(
        "--workers",
        type=int,
        default=1,
        help="processes, each with its share of the CPU cores; for small networks on CPU "
        "(default: 1)",
    )


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
