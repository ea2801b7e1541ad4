"""Seconds that `aver predict` of one clip takes as a whole process, beside another checkout.

python tools/bench_startup.py --run RUN --clip CLIP --baseline CHECKOUT
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def seconds(checkout: Path, words: list[str]) -> float:
    """Returns the wall seconds of one `aver` command with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "aver_jax", *words]
    began = time.perf_counter()
    subprocess.run(command, env=environment, cwd=checkout, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> int:
    """Prints medians and ranges of alternating runs, after one of each that does not count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder")
    parser.add_argument("--clip", type=Path, required=True, help="media file")
    parser.add_argument("--baseline", type=Path, help="another checkout to compare with")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    words = ["predict", str(args.run.resolve()), str(args.clip.resolve())]
    sides = {"this checkout": ROOT} | ({"baseline": args.baseline} if args.baseline else {})
    for checkout in sides.values():
        seconds(checkout, words)
    taken = {name: [] for name in sides}
    for _ in range(args.repeats):
        for name, checkout in sides.items():
            taken[name].append(seconds(checkout, words))
    for name, values in taken.items():
        print(
            f"{name}: median {statistics.median(values):.2f} s "
            f"({min(values):.2f} to {max(values):.2f}, {len(values)} runs)"
        )
    if args.baseline:
        ratios = [a / b for a, b in zip(taken["this checkout"], taken["baseline"], strict=True)]
        print(f"ratio, pair by pair: median {statistics.median(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
