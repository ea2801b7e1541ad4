"""Times the input pipeline by number of threads: reading, decoding and batching, in clips/s.

    python tools/bench_input.py [--data DIR] [--out FOLDER] [--threads 1,2]

Without --data, synthetic clips of CREMA-D's length and stored size are written to a temporary
folder. The numbers of threads alternate between repeats and the median is reported, so that a busy
machine affects all alike.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from aver_jax.bench.worker.inputs import write_synthetic_dataset
from aver_jax.bench.worker.tasks import endless_batches
from aver_jax.errors import UserError
from aver_jax.input import ClipShape, Dataset, Loader, open_dataset
from aver_jax.modality import Modality

TARGET = 250.0  # clips/s per core at 8 frames of 224 px


def measure(
    dataset: Dataset, threads: int, steps: int, batch_size: int, shape: ClipShape
) -> dict[str, float]:
    """Returns clips per second of wall time and of processor time."""
    batches = endless_batches(dataset, Loader(shape, batch_size, threads))
    # Prefetched batches must not be timed.
    for _ in range(threads + 2):
        next(batches)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(batches)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    batches.close()
    clips = steps * batch_size
    return {"clips_per_s": clips / wall, "clips_per_core_s": clips / processor}


def main(argv: list[str] | None = None) -> int:
    """Prints the table; writes input.json and input.md into --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="prepared dataset (default: synthetic clips)")
    parser.add_argument("--out", type=Path, help="folder for input.json and input.md")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, comma-separated")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="batches per repeat")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--audio", action="store_true", help="batches include audio")
    args = parser.parse_args(argv)
    try:
        return _report(args)
    except UserError as error:
        print(f"bench_input: error: {error}", file=sys.stderr)
        return 2


def _report(args: argparse.Namespace) -> int:
    threads = [int(number) for number in args.threads.split(",")]
    modalities = tuple(Modality) if args.audio else (Modality.VIDEO,)
    shape = ClipShape(args.num_frames, args.image_size, modalities=modalities)
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or Path(folder) / "data"
        if args.data is None:
            write_synthetic_dataset(data)
        dataset = open_dataset(data)
        runs = {number: [] for number in threads}
        for repeat in range(args.repeats):
            for number in threads if repeat % 2 == 0 else threads[::-1]:
                runs[number].append(measure(dataset, number, args.steps, args.batch_size, shape))
        stored = float(np.mean([len(jpeg) for jpeg in dataset.source[0]["frames"]]))
    result = {
        "shape": f"{args.num_frames}x{args.image_size}x{args.image_size}",
        "target_clips_per_core_s": TARGET,
        "cores": os.cpu_count(),
        "options": {
            "batch_size": args.batch_size,
            "num_frames": args.num_frames,
            "image_size": args.image_size,
            "modalities": [modality.array for modality in shape.modalities],
        },
        "image_bytes": stored,
        "runs": runs,
        "medians": {
            number: {name: statistics.median(run[name] for run in repeats) for name in repeats[0]}
            for number, repeats in runs.items()
        },
    }
    text = _page(args, result, dataset.preparation["size"])
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "input.md").write_text(text + "\n", encoding="utf-8")
        (args.out / "input.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 0


def _page(args: argparse.Namespace, result: dict[str, object], size: int) -> str:
    lines = [
        "# Input pipeline",
        "",
        f"{result['shape']}, batches of {args.batch_size}, "
        f"{'frames and audio' if args.audio else 'frames'}, "
        f"{'given data' if args.data else 'synthetic clips of 75 frames'}, stored at "
        f"{size} px, {result['image_bytes'] / 1024:.1f} KB an image; "
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"OpenCV {cv2.__version__}; median of {args.repeats} alternating repeats of "
        f"{args.steps} batches. Target: {TARGET:.0f} clips/s per core at 8x224x224.",
        "",
        "| threads | clips/s | clips/s per core (processor time) |",
        "|---:|---:|---:|",
    ]
    for number, rate in result["medians"].items():
        lines.append(f"| {number} | {rate['clips_per_s']:.0f} | {rate['clips_per_core_s']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
