"""What the shipped programs cost on chips that are not here: results.json, a table and a plot.

    python tools/chips_table.py --out runs/chips [--only PATTERN]

Needs the extra `chips`; `make chips` sets it up. Every program is compiled in a process of its own,
one after the other, and a row that is there already is kept: the command goes on where it stopped.
"""

import argparse
import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from aver_jax.report.figures import LIGHT, new_figure, png, themed
from aver_jax.runtime.atomic_files import write_whole


class Program(NamedTuple):
    """A row: its name, words of `aver compile`, and the chip."""

    name: str
    words: str
    chip: str


_B = "--config timesformer.py:size=B"
_SMALL = "--config.model.remat=block --config.model.unroll=1"
_N2 = "--config mrpn.py:network=n2,size=thesis,dataset=crema_d --config.batch_size={batch}"
PROGRAMS = (
    Program("TimeSformer-B train", _B, "h100"),
    Program("TimeSformer-B train, kernel=xla", f"{_B} --config.model.kernel=xla", "h100"),
    Program("TimeSformer-B train, remat=block, loop", f"{_B} {_SMALL}", "h100"),
    Program("TimeSformer-B inference", f"{_B} --program inference", "h100"),
    Program("TimeSformer-B TIBAV", f"{_B} --config.batch_size=32 --program relevance", "h100"),
    Program("MRPN n2 train", _N2.format(batch=32), "h100"),
    Program("MRPN n2 inference", f"{_N2.format(batch=32)} --program inference", "h100"),
    Program("TimeSformer-B train", f"{_B} --config.batch_size=8", "v5e"),
    Program("TimeSformer-B train", f"{_B} --config.batch_size=8", "v6e"),
    Program("TimeSformer-B inference", f"{_B} --config.batch_size=8 --program inference", "v5e"),
    Program("MRPN n2 train", _N2.format(batch=8), "v5e"),
    Program("TimeSformer-B train", f"{_B} --config.batch_size=512", "h100:8"),
    Program("MRPN n2 train", _N2.format(batch=256), "h100:8"),
    Program("TimeSformer-B train", f"{_B} --config.batch_size=2048", "v5e:16x16"),
)


def main(argv: list[str] | None = None) -> int:
    """Compiles what is missing; returns 1 if a program failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/chips"))
    parser.add_argument("--only", default="*", help="programs whose 'NAME, CHIP' match")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for program in PROGRAMS:
        if not fnmatch.fnmatch(f"{program.name}, {program.chip}", args.only):
            continue
        file = args.out / "programs" / f"{_slug(program)}.json"
        if _is_of(file, program):
            continue
        file.parent.mkdir(exist_ok=True)
        words = [*program.words.split(), "--chip", program.chip, "--json", str(file)]
        print(f"{program.name}, {program.chip}", file=sys.stderr, flush=True)
        code = subprocess.run([sys.executable, "-m", "aver_jax", "compile", *words]).returncode
        failed += code != 0
    rows = [_row(program, args.out) for program in PROGRAMS]
    rows = [row for row in rows if row]
    write_whole(args.out / "results.json", json.dumps(rows, indent=1) + "\n")
    write_whole(args.out / "table.md", table(rows))
    write_whole(args.out / "times.png", plot(rows))
    print(f"table: {args.out / 'table.md'}")
    return int(failed > 0)


def _is_of(file: Path, program: Program) -> bool:
    """Returns whether a file holds what this version of jax compiled from these words."""
    if not file.exists():
        return False
    found = json.loads(file.read_text())
    words = ["--config", found["config"], *found["overrides"]]
    if found["program"] != "train":
        words += ["--program", found["program"]]
    return found["jax"] == metadata.version("jax") and set(program.words.split()) == set(words)


def _row(program: Program, out: Path) -> dict | None:
    file = out / "programs" / f"{_slug(program)}.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    return {
        "program": program.name,
        "chip": found["chip"],
        "devices": found["devices"],
        "clips_per_device": found["clips"] // found["devices"],
        "ms": 1e3 * found["seconds"],
        "floor_ms": 1e3 * found["floor"],
        "tflop": found["done"] / 1e12,
        "gigabytes": found["bytes"] / 1e9,
        "gib": sum(found["memory"].values()) / 2**30,
        "fits": found["fits"],
        "collectives": {each["kind"]: each["count"] for each in found["collectives"]},
        "link_ms": 1e3 * sum(each["seconds"] for each in found["collectives"]),
        "compile_seconds": found["compile_seconds"],
        "jax": found["jax"],
    }


def table(rows: Iterable[dict]) -> str:
    """Returns the rows as Markdown."""
    lines = [
        "| program | chip | clips a device | ms | floor | TFLOP | GB | GiB | collectives |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        kinds = ", ".join(f"{count} {kind}" for kind, count in row["collectives"].items())
        links = f"{kinds} ({row['link_ms']:.1f} ms)" if kinds else ""
        lines.append(
            f"| {row['program']} | {row['devices']} x {row['chip']} | {row['clips_per_device']} | "
            f"{row['ms']:.1f} | {row['floor_ms']:.1f} | {row['tflop']:.1f} | "
            f"{row['gigabytes']:.0f} | {row['gib']:.1f}{'' if row['fits'] else ', does not fit'} | "
            f"{links} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list[dict]) -> bytes:
    """Returns a picture of the times beside their floors, PNG."""
    with themed(LIGHT):
        figure = new_figure(7.5, 0.6 + 0.42 * len(rows))
        axes = figure.subplots()
        places = range(len(rows))
        axes.barh(places, [row["ms"] for row in rows], label="bound (GPU) or estimate (TPU)")
        axes.barh(places, [row["floor_ms"] for row in rows], height=0.3, label="needed FLOPs")
        axes.set_yticks(
            list(places), [f"{row['program']}\n{row['devices']} x {row['chip']}" for row in rows]
        )
        axes.invert_yaxis()
        axes.set_xlabel("ms a batch")
        axes.legend(frameon=False)
    return png(figure)


def _slug(program: Program) -> str:
    return re.sub(r"\W+", "_", f"{program.name}_{program.chip}")


if __name__ == "__main__":
    sys.exit(main())
