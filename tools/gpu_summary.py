"""Results of tools/gpu_check.sh as gpu_check.json and gpu_check.md."""

import argparse
import csv
import datetime
import json
import statistics
from importlib import metadata
from pathlib import Path

import jax

from aver_jax.runs.metrics_log import read_metrics

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


def training_rates(run: Path) -> dict[str, float]:
    """Returns median clips/s of a run's training windows, the first (it compiles) left out."""
    records = [r for r in read_metrics(run / "metrics.jsonl") if "clips_per_second" in r]
    rates = [record["clips_per_second"] for record in records[1:]]
    if not rates:
        return {}
    return {
        "clips_per_second": statistics.median(rates),
        "data_wait": statistics.median(r["data_wait"] for r in records[1:]),
        "final_loss": records[-1]["train/loss"],
        "steps": records[-1]["step"],
    }


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=Path, required=True, help="name, exit code, seconds")
    parser.add_argument("--runs", type=Path, required=True, help="folder with the run folders")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with args.steps.open(newline="") as file:
        steps = [
            {"step": name, "exit_code": int(code), "seconds": int(seconds)}
            for name, code, seconds in csv.reader(file, delimiter="\t")
        ]
    device = jax.devices()[0]
    summary = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "steps": steps,
        "training": {
            run.parent.name: training_rates(run.parent)
            for run in sorted(args.runs.glob("*/metrics.jsonl"))
        },
    }
    (args.out / "gpu_check.json").write_text(json.dumps(summary, indent=2) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    lines = [
        f"# {summary['devices']} x {summary['device']}, {summary['date']}",
        "",
        f"`tools/gpu_check.sh`; {versions}",
        "",
        "| step | exit code | seconds |",
        "|---|---:|---:|",
        *(f"| {s['step']} | {s['exit_code']} | {s['seconds']} |" for s in steps),
        "",
        "| training | clips/s (median) | waiting for data | steps | last loss |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {name} | {t['clips_per_second']:.1f} | {100 * t['data_wait']:.1f}% "
            f"| {t['steps']} | {t['final_loss']:.3f} |"
            for name, t in summary["training"].items()
            if t
        ),
    ]
    (args.out / "gpu_check.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
