"""The GPU of this machine, its driver and the versions of packages. Imports no jax."""

import contextlib
import os
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "transformers")


def machine() -> dict[str, Any]:
    """Returns "gpu" (None where there is none), "chip" (H100, H200, other, none), "driver",
    "cores" and "versions" of the packages that are here.
    """
    found = _from_driver()
    name, _, driver = found.partition(", ")
    return {
        "gpu": name or None,
        "chip": chip_name(name),
        "driver": driver or None,
        "cores": len(os.sched_getaffinity(0)),
        "versions": dict(_versions()),
    }


def chip_name(gpu: str) -> str:
    """Returns H100 or H200 by the GPU's name, "other", or "none" without a name."""
    chip = re.search(r"\bH[12]00\b", gpu)
    return chip.group() if chip else "other" if gpu else "none"


def line_of(found: dict[str, Any]) -> str:
    """Returns a machine as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    gpu = f"{found['chip']} ({found['gpu']}), driver {found['driver']}"
    gpu = gpu if found["gpu"] else "CPU, a rehearsal"
    return f"{gpu}; {found['cores']} cores; {versions}"


def _from_driver() -> str:
    """Returns "name, driver version" of the first GPU, or ""."""
    query = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    driver = Path("/proc/driver/nvidia")
    for information in sorted(driver.glob("gpus/*/information")):
        model = re.search(r"^Model:\s*(.+)$", information.read_text(), re.MULTILINE)
        version = re.search(r"\s(\d+\.\d+[.\d]*)\s", (driver / "version").read_text())
        return f"{model.group(1) if model else 'GPU'}, {version.group(1) if version else '?'}"
    return ""


def _versions():
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)
