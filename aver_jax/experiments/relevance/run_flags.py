"""Flags of experiments on one trained model: they share RUN, --out and what is tested."""

import argparse
from collections.abc import Callable
from pathlib import Path

from aver_jax.experiments.page_flag import add_page

EPILOG = (
    "The same command goes on with an experiment that was stopped: what is finished stays "
    "in OUT. Remove OUT, or choose another, to begin anew."
)
BASELINES = "black,mean,blur"
FAITHFULNESS_BASELINES = "mean,blur"


def add_run(add: Callable[..., object], *, clips: int = 0, methods: bool = True) -> None:
    """Adds the flags of every experiment on a run.

    Args:
      add: a parser's `add_argument`.
      clips: default of --clips; 0 takes all of the test split.
      methods: whether the experiment is about methods of relevance.
    """
    add("run", type=Path, help="run folder, the --workdir of aver train")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--data", type=Path, help="prepared dataset (default: the run's own)")
    add("--checkpoint", default="best", help="best (default), last, or a step")
    if methods:
        add(
            "--methods",
            type=names,
            default="all",
            help="methods of relevance, as tibav,grad_cam (default: all that the model has)",
        )
    text = f"{clips}" if clips else "all"
    add("--clips", type=count, default=clips or None, help=f"at most (default: {text})")
    add("--batch-size", type=count, default=16, help="clips at a time (default: 16)")
    add_page(add)


def occlusion_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `occlusion`."""
    add_run(add, clips=48)
    _add_target(add)
    add("--baselines", type=names, default=BASELINES, help=f"default: {BASELINES}")


def faithfulness_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `faithfulness`."""
    add_run(add, clips=32)
    _add_target(add)
    text = f"at least two of {BASELINES} (default: {FAITHFULNESS_BASELINES})"
    add("--baselines", type=names, default=FAITHFULNESS_BASELINES, help=text)


def trends_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `trends`; maps explain the label, which is what was predicted."""
    add_run(add)


def parts_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `parts`."""
    add_run(add, methods=False)
    add("--baselines", type=names, default=BASELINES, help=f"default: {BASELINES}")


def names(text: str) -> tuple[str, ...]:
    """Returns the words of a list with commas, each once."""
    found = tuple(dict.fromkeys(filter(None, text.split(","))))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}, expected names with commas between")
    return found


def count(text: str) -> int:
    """Returns a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number from 1 on")
    return int(text)


def _add_target(add: Callable[..., object]) -> None:
    add(
        "--target",
        choices=("predicted", "label"),
        default="predicted",
        help="class that is explained (default: predicted)",
    )
