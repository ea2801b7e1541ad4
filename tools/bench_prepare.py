"""Times the preparation of clips (`aver prepare`): clips per second per core, peak memory.

    python tools/bench_prepare.py [--source DIR] [--seconds 10] [--out FOLDER]

Takes the clips under --source, by default real CREMA-D clips (environment variable
AVER_REAL_CLIPS, or shared/data/crema_d beside the repository) and, without them, rendered ones.
Each case runs in a process of its own, as a preparation worker does. Prints a Markdown table and
writes bench_prepare.json and .md to --out (environment variable OUT).
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aver_jax.bench.worker.protocol import peak_memory

CASES = ("clips as they are", "720p, 3.7 s", "4K, 2 s", "1080p, 20 s")
_RESIZED = {
    "720p, 3.7 s": (1280, 720, 3.7),
    "4K, 2 s": (3840, 2160, 2),
    "1080p, 20 s": (1920, 1080, 20),
}


def measure(paths: Sequence[Path], seconds: float, detector: str) -> dict:
    """Returns the rate and peak memory of preparing clips in turn; run in a fresh process."""
    import cv2

    from data_prep.clip import Job, Preparation, prepare_clip

    cv2.setNumThreads(1)
    preparation = Preparation(detector=detector)
    frames = len(prepare_clip(Job(paths[0]), preparation, ("video",))["frames"])
    clips, wall, cpu = 0, time.perf_counter(), time.process_time()
    while clips < len(paths) or time.perf_counter() - wall < seconds:
        prepare_clip(Job(paths[clips % len(paths)]), preparation, ("video",))
        clips += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "clips": clips,
        "frames": frames,
        "clips_per_wall_second": round(clips / wall, 2),
        "clips_per_cpu_second": round(clips / cpu, 2),
        "peak_mb": round(peak_memory() / 2**20),
    }


def resized(clip: Path, out: Path, width: int, height: int, seconds: float) -> Path:
    """Writes a clip at another size and length, repeating its frames, and returns its path."""
    import cv2
    import numpy as np

    from data_prep.media import decode, write_clip

    small = list(decode(clip, audio=False).frames)
    count = round(seconds * 30)
    images = (cv2.resize(small[i % len(small)], (width, height)) for i in range(count))
    write_clip(out, images, 30, np.zeros(0, np.int16), 16_000, crf=28)
    return out


def find_clips(source: Path | None, scratch: Path) -> tuple[list[Path], str]:
    """Returns the clips to measure and a description of them."""
    beside = Path(__file__).parents[2] / "shared/data/crema_d"
    source = source or Path(os.environ.get("AVER_REAL_CLIPS", beside)) / "clips"
    clips = sorted(file for file in source.glob("*") if file.suffix in (".flv", ".mp4"))
    if clips:
        return clips, f"{len(clips)} clips, {clips[0].suffix}"
    from data_prep.synthetic.corpus import render_corpus

    render_corpus(scratch, clips=8, actors=4, seed=0)
    return sorted(scratch.rglob("*.mp4")), "8 rendered clips"


def main() -> None:
    """Runs every case and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--seconds", type=float, default=10, help="per case")
    parser.add_argument("--detector", default="haar")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "runs/bench")))
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    results = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        clips, what = find_clips(args.source, Path(scratch))
        results |= {"clips": what, "detector": args.detector, "cases": {}}
        for case in CASES:
            paths = clips
            if case in _RESIZED:
                paths = [resized(clips[0], Path(scratch) / "resized.mp4", *_RESIZED[case])]
            with spawn.Pool(1) as pool:
                results["cases"][case] = pool.apply(measure, (paths, args.seconds, args.detector))
    lines = [
        f"Preparing clips ({what}, detector {args.detector}, one worker on {results['machine']})",
        "",
        "| case | frames | clips/s of a core | clips/s measured | peak MB |",
        "|---|---|---|---|---|",
    ]
    for case, row in results["cases"].items():
        lines.append(
            f"| {case} | {row['frames']} | {row['clips_per_cpu_second']} | "
            f"{row['clips_per_wall_second']} | {row['peak_mb']} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench_prepare.md").write_text(text)
    (args.out / "bench_prepare.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
