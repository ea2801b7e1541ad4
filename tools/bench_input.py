"""Clips per second of the input pipeline: reading, decoding and batching, by number of threads.

    python tools/bench_input.py [--data DIR] [--out FOLDER] [--threads 1,2]

Without --data, clips of CREMA-D's length and stored size are made up in a temporary folder. The
orders of settings alternate between repeats, and the median is reported, so that a busy machine
disturbs all alike.
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

from aver_jax.bench.worker.inputs import write_dataset
from aver_jax.errors import UserError
from aver_jax.input import open_dataset, training_batches

TARGET = 250.0  # clips/s per core at 8 frames of 224 px


def measure(dataset, threads: int, steps: int, options: dict) -> dict[str, float]:
    """Clips per second of wall time and of processor time, one warm-up batch excluded."""
    # grain shuffles few rows slowly: 4 ms an index for 4 rows, 20 us for 1000.
    rows = np.resize(np.arange(len(dataset)), max(len(dataset), 1024))
    batch_size = options["batch_size"]
    batches = training_batches(
        dataset, rows, np.zeros(len(dataset), np.int32), seed=0, threads=threads, **options
    )
    # As many as may be ready before the clock starts.
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
    parser.add_argument("--data", type=Path, help="a prepared dataset; made up if not given")
    parser.add_argument("--out", type=Path, help="folder for input.json and input.md")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, comma-separated")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="batches per repeat")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--audio", action="store_true", help="batches carry sound too")
    arguments = parser.parse_args(argv)
    threads = [int(number) for number in arguments.threads.split(",")]
    options = {
        "batch_size": arguments.batch_size,
        "num_frames": arguments.num_frames,
        "image_size": arguments.image_size,
        "modalities": ("frames", "audio") if arguments.audio else ("frames",),
    }

    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder) / "data"
        if arguments.data is None:
            write_dataset(data)
        try:
            dataset = open_dataset(data)
            runs = {number: [] for number in threads}
            for repeat in range(arguments.repeats):
                for number in threads if repeat % 2 == 0 else threads[::-1]:
                    runs[number].append(measure(dataset, number, arguments.steps, options))
        except UserError as error:
            print(f"bench_input: error: {error}", file=sys.stderr)
            return 2
        stored = np.mean([len(jpeg) for jpeg in dataset.source[0]["frames"]])

    medians = {
        number: {name: statistics.median(run[name] for run in repeats) for name in repeats[0]}
        for number, repeats in runs.items()
    }
    table = [
        "| threads | clips/s | clips/s per core (processor time) |",
        "|---:|---:|---:|",
        *(
            f"| {number} | {rate['clips_per_s']:.0f} | {rate['clips_per_core_s']:.0f} |"
            for number, rate in medians.items()
        ),
    ]
    shape = f"{arguments.num_frames}x{arguments.image_size}x{arguments.image_size}"
    text = "\n".join(
        [
            "# Input pipeline",
            "",
            f"{shape}, batches of {arguments.batch_size}, "
            f"{'frames and sound' if arguments.audio else 'frames'}, "
            f"{'given data' if arguments.data else 'made-up clips of 75 frames'}, stored at "
            f"{dataset.preparation['size']} px, {stored / 1024:.1f} KB an image; "
            f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
            f"OpenCV {cv2.__version__}; median of {arguments.repeats} alternated repeats of "
            f"{arguments.steps} batches. Target: {TARGET:.0f} clips/s per core at 8x224x224.",
            "",
            *table,
        ]
    )
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "input.md").write_text(text + "\n", encoding="utf-8")
        result = {
            "shape": shape,
            "target_clips_per_core_s": TARGET,
            "cores": os.cpu_count(),
            "options": options,
            "image_bytes": float(stored),
            "runs": runs,
            "medians": medians,
        }
        (arguments.out / "input.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
