"""Where the numbers of a benchmark come from: date, machine, versions, command."""

import datetime
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """Returns the facts of this machine and of what was run.

    Args:
      command: its words; of absolute paths the last part is kept, since others have other folders.
    """
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {_processor()}, {_cores()} cores, {_memory()}",
        "system": platform.system(),
        "command": shlex.join(_without_folder(word) for word in command),
    }


def of_sides(records: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the devices and the versions ("jax 0.10.2") that the sides of some cases named."""
    devices, versions = {}, {}
    for record in records:
        for side in record["sides"].values():
            devices |= {side["device"]: None} if "device" in side else {}
            versions |= side.get("versions", {})
    return list(devices), [f"{name} {version}" for name, version in versions.items()]


def _without_folder(word: str) -> str:
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if os.path.isabs(value) else word


def _cores() -> int:
    # Fewer than the machine's where this process may not use all.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown memory"
    return f"{size / 2**30:.0f} GiB"
