r"""Reports what the train step or forward pass of an experiment spends time and memory traffic on.

    python tools/hlo_report.py --config timesformer.py:size=demo [--config.FIELD=VALUE ...] \
        [--batch_size 16] [--classes 6] [--program train|inference] [--top 20] \
        [--trace RUN/profile] [--json FILE]

Compiles it for this machine, without a dataset, and reads XLA's optimised HLO: bytes, products and
how often each instruction runs, by class, by source line, and for the costliest instructions. With
a trace (`aver train --profile START:STOP`, made with the same config, batch size and number of
classes on the same kind of device) also the measured time of each instruction.

Bytes are what instructions read and write, as if nothing stayed in a cache. A class "transpose" is
a fusion whose result is a change of order, whatever else it computes on the way. In traces of a CPU
an instruction that works on asynchronously (a product outside of YNN) shows its dispatch alone: the
share that no instruction covers is mostly theirs.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from aver_jax.chips.catalog import PROGRAMS
from aver_jax.chips.hlo.costs import costs
from aver_jax.chips.hlo.text import parse
from aver_jax.chips.programs import compiled_afresh, lowered
from aver_jax.config import differences, flat_fields, load_config, override, to_json
from aver_jax.errors import UserError
from aver_jax.runs.run_folder import read_config
from tools.hlo.report import as_json, make_report, report_text
from tools.hlo.traces import read, trace_file

# Fields of an experiment that change what is compiled.
_COMPILED_FIELDS = (
    "model.", "frontend.", "batch_size", "data.modalities", "data.num_frames", "data.image_size",
    "data.max_seconds", "optimizer.name", "optimizer.accumulate", "optimizer.clip_norm", "freeze",
    "ema_decay", "parallel",
)  # fmt: skip
ROOT = str(Path(__file__).resolve().parents[1])
_MEMORY = ("argument", "output", "temp", "alias", "generated_code")


def is_ours(file: str) -> bool:
    """Returns whether a source file belongs to the project, not to a library installed in it."""
    return file.startswith(ROOT) and "site-packages" not in file


def memory(function: jax.stages.Compiled) -> dict[str, int]:
    """Returns bytes per device by use; {} where the backend does not report them."""
    found = function.memory_analysis()
    return {
        name: getattr(found, f"{name}_size_in_bytes")
        for name in _MEMORY
        if hasattr(found, f"{name}_size_in_bytes")
    }


def check_run(trace: Path, config: ConfigDict) -> None:
    """Raises UserError if a trace lies in a run folder whose compiled function is not the config's.

    Names of instructions do not show it: they are the same with another batch size.
    """
    folders = [place for place in trace.resolve().parents if (place / "config.json").is_file()]
    if not folders:
        return
    run, _ = read_config(folders[0])
    if run.data.cache == "device":
        raise UserError(
            f"{folders[0]} has config.data.cache 'device', whose step is not the one compiled "
            "here; profile a run with --config.data.cache=none"
        )
    was, now = (flat_fields(to_json(each)) for each in (run, config))
    different = [
        f"config.{name} was {old}, here {new}"
        for name, old, new in differences(was, now)
        if name.startswith(_COMPILED_FIELDS)
    ]
    if different:
        raise UserError(f"the trace is of another compiled function: {'; '.join(different)}")


def main(argv: list[str] | None = None) -> int:
    """Prints the report; returns 2 for an error the user can put right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", required=True, help="path or shipped name; --config.FIELD=VALUE sets a field"
    )
    parser.add_argument("--batch_size", type=int, help="clips of a batch; default: the config's")
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--program", choices=PROGRAMS, default="train")
    parser.add_argument("--top", type=int, default=20, help="lines of a table")
    parser.add_argument("--trace", type=Path, help="a folder or file that jax.profiler wrote")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args, words = parser.parse_known_args(argv)
    try:
        return _report(args, words)
    except UserError as error:
        print(f"hlo_report: error: {error}", file=sys.stderr)
        return 2


def _report(args: argparse.Namespace, words: list[str]) -> int:
    for name in ("batch_size", "classes", "top"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; expected at least 1")
    config = override(load_config(args.config), words)
    if args.batch_size:
        config.batch_size = args.batch_size
    if args.trace:
        # Errors before the compiler's minute, not after it.
        check_run(trace_file(args.trace), config)
    began = time.perf_counter()
    if config.parallel != "shard_map":
        raise UserError(
            f"config.parallel is {config.parallel!r}; the report compiles the step of shard_map, "
            "which does the same work: leave it out"
        )
    function = compiled_afresh(lowered(config, args.classes, args.program).lowered)
    seconds = time.perf_counter() - began
    parsed = parse(function.as_text())
    found = costs(parsed, is_ours)
    measured = None
    if args.trace:
        measured = read(args.trace, parsed.name, found.containers)
    report = make_report(found, measured)
    metadata = {
        "config": args.config,
        "overrides": words,
        "program": args.program,
        "batch_size": config.batch_size,
        "classes": args.classes,
        "devices": jax.device_count(),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "memory": memory(function),
    }
    print(
        f"{args.config}: {args.program}, {config.batch_size} clips on "
        f"{metadata['devices']} x {metadata['device']}, jax {jax.__version__}; traced and "
        f"compiled in {seconds:.1f} s"
    )
    sizes = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in metadata["memory"].items())
    print(f"memory per device in MB: {sizes}")
    print(report_text(report, args.top))
    if args.json:
        content = json.dumps({**metadata, **as_json(report)}, indent=1)
        try:
            args.json.write_text(content + "\n")
        except OSError as error:
            raise UserError(f"cannot write {args.json}: {error.strerror}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
