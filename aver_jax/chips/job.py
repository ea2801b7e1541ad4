"""What a program would cost on a chip that is not here: memory, time at the limits, collectives.

Compiles the train step, the forward pass or relevance of an experiment for GPUs or TPUs that this
machine need not have, and adds up what the compiled kernels must move and multiply. Needs Python
3.12 and the extra `chips`.
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

from aver_jax.chips.catalog import CHIPS, GIB, PROGRAMS, Target, make_topology_mesh, parse_target
from aver_jax.errors import UserError
from aver_jax.runtime.atomic_files import check_writable, write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver compile`."""
    add = parser.add_argument
    add("--config", required=True, metavar="SPEC", help="experiment, as timesformer.py:size=B")
    # fmt: off
    add("--chip", required=True, metavar="CHIP[:DEVICES]",
        help=f"{', '.join(CHIPS)}; GPUs with their number (h100:8), TPUs with the slice (v5e:4x4)")
    add("--program", choices=PROGRAMS, default="train", help="default: train")
    add("--method", default="", help="of relevance (default: the model's first)")
    add("--classes", type=int, default=6, help="number of classes (default: 6)")
    add("--largest-batch", action="store_true",
        help="also look for the largest batch that fits; compiles about six times more")
    add("--top", type=int, default=12, help="costliest sources to print (default: 12)")
    add("--json", type=Path, metavar="FILE", help="write all numbers there")  # fmt: skip


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Compiles and prints the estimate."""
    target = parse_target(args.chip)
    for name in ("classes", "top"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; expected at least 1")
    if args.json:
        check_writable(args.json.parent, "--json")
    # Devices of this machine are not looked for: that takes long where a plugin waits for them.
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_platforms", "cpu")
    from aver_jax.chips.estimate import Estimate
    from aver_jax.chips.largest import MOST, largest_batch
    from aver_jax.chips.programs import DoesNotFit, estimated
    from aver_jax.chips.table import estimate_text
    from aver_jax.config import load_config, override

    config = override(load_config(args.config), overrides)
    mesh = make_topology_mesh(target)

    def of(batch_size: int) -> Estimate:
        config.batch_size = batch_size
        return estimated(config, args.classes, args.program, target, mesh, args.method)

    def fits(batch_size: int) -> bool:
        try:
            return of(batch_size).fits
        except DoesNotFit:
            return False

    parts = target.devices * (config.optimizer.accumulate if args.program == "train" else 1)
    batch_size, began = config.batch_size, time.perf_counter()
    try:
        found = of(batch_size)
    except DoesNotFit:
        if args.largest_batch:
            print(_largest_text(largest_batch(batch_size, parts, fits), target, parts * MOST))
        raise
    seconds = time.perf_counter() - began
    named = f"{args.config} {' '.join(overrides)}".strip()
    print(estimate_text(found, target, f"{named}: {args.program}", seconds, args.top))
    largest = None
    if args.largest_batch:
        largest = largest_batch(batch_size, parts, fits)
        print(_largest_text(largest, target, parts * MOST))
    if args.json:
        content = {
            "config": args.config,
            "overrides": overrides,
            "program": args.program,
            "method": args.method,
            "chip": target.chip.name,
            "devices": target.devices,
            "jax": jax.__version__,
            "compile_seconds": seconds,
            "largest_batch": largest,
            **dataclasses.asdict(found),
            "mfu": found.mfu,
            "link_seconds": found.link_seconds,
            "clips_per_second": found.clips_per_second,
            "rates": {**dataclasses.asdict(target.chip)},
        }
        write_whole(args.json, json.dumps(content, indent=1) + "\n")
    return 0


def _largest_text(largest: int | None, target: Target, most: int) -> str:
    memory = f"{target.chip.memory / GIB:.0f} GiB"
    if largest is None:
        return f"largest batch: not even one clip a device fits into {memory}"
    found = f"{largest} clips, {largest // target.devices} a device"
    if largest >= most:
        return f"largest batch: at least {found}; no larger one was tried"
    return f"largest batch: {found}, within an eighth"
