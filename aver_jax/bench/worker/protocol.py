"""What the workers of all implementations share: requests, files of arrays, peak of memory."""

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.runtime.atomic_files import whole

Handlers = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]


def serve(start: Callable[[], Handlers]) -> None:
    """Answers requests on stdin, one JSON object a line, until "quit" or the end of stdin.

    Args:
      start: makes the handlers by request; called when stdout is safe from what libraries print.
        "drop" is called at the end.
    """
    # Libraries may print: whatever they say goes to stderr, and only answers to the parent.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    handlers = start()
    for line in sys.stdin:
        if json.loads(line).get("do") == "quit":
            break
        answers.write(json.dumps(answered(handlers, line)) + "\n")
    handlers["drop"]({})


def answered(handlers: Handlers, line: str) -> dict[str, Any]:
    """Returns the answer to one line; an exception becomes one line."""
    try:
        request = json.loads(line)
        if request["do"] not in handlers:
            raise ValueError(f"no request {request['do']!r}; there are: {', '.join(handlers)}")
        return handlers[request["do"]](request)
    except Exception as error:  # whatever it is, the parent goes on with the other cases
        what = " ".join(str(error).split())[:500]
        return {"error": f"{type(error).__name__}: {what}"}


def write_result(folder: Path, side: str, result: dict[str, np.ndarray]) -> None:
    """Writes what a side answers, for the parent to compare."""
    write_arrays(folder / f"result_{side}.npz", result)


def read_result(folder: Path, side: str) -> dict[str, np.ndarray]:
    """Returns what a side answered; {} if it wrote nothing."""
    return read_arrays(folder / f"result_{side}.npz")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz; {} if there is none."""
    if not path.exists():
        return {}
    with np.load(path) as arrays:
        return dict(arrays)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz whole."""
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def reset_peak_resident_set() -> None:
    """Lets the peak begin anew, where the system has that: what compiling needed is no matter."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident_set() -> int:
    """Returns the most bytes held since `reset_peak`, of the program with its libraries."""
    # ru_maxrss would also hold the process' before its exec.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)
