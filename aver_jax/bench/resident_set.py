"""The most memory that this process held. Knows no jax."""

import contextlib
import resource
import sys
from pathlib import Path


def reset_peak() -> None:
    """Lets the peak begin anew, where the system has that: what compiling needed is no matter."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Returns the most bytes held since `reset_peak`, of the program with its libraries."""
    # ru_maxrss would also hold the process' before its exec.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)
