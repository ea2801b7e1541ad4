"""The train command: from a prepared dataset and a config to a run folder."""

import argparse
from pathlib import Path

from aver_jax.config import described_fields, load_config, override
from aver_jax.runtime.step_trace import parse_range
from aver_jax.training.loop import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver train`."""
    parser.add_argument(
        "--config", required=True, help="path or shipped name, e.g. timesformer.py:size=demo"
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, help="run folder; resumes an unfinished run in it"
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="go on with a finished run for more epochs; schedule and learning rate may change, "
        "and config.json records it",
    )
    parser.add_argument(
        "--profile",
        metavar="START:STOP",
        help="trace steps START to STOP-1 (counted from 1) into RUN/profile, for TensorBoard and "
        "Perfetto; 11:16 traces steps 11 to 15; the first steps compile and are better left out. "
        "Steps that are dispatched together are traced together",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        [
            "Every field of the config is a flag, as in --config.optimizer.lr=1e-4.",
            "Below: name=default, meaning. config.model has the fields of its network, and",
            "config.frontend.augment and .sound those of the augmentations.",
            "",
            *described_fields(),
        ]
    )


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `aver train`; `overrides` are the words that begin with "--config."."""
    config = override(load_config(args.config), overrides)
    profile = parse_range(args.profile) if args.profile is not None else None
    train(config, args.workdir, profile=profile, extend=args.extend)
    print(f"run folder: {args.workdir}")
    return 0
