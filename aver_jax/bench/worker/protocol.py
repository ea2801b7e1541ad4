"""JSON lines between the benchmark and its worker processes, both ends of it.

Imports no jax, since the PyTorch worker uses it too.
"""

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

Handlers = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]

# Seconds that a worker has to end when it is asked to.
_GRACE = 5.0


class WorkerError(Exception):
    """A worker replied with an error or not at all; one line."""


class WorkerProcess:
    """A running worker.

    Args:
      name: its implementation, for messages.
      command: the words that start it.
      log: file for its stderr.
      environment: variables added to those of this process.
      folder: working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ):
        self.name, self._log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | dict(environment or {}),
                cwd=folder,
            )
        self._buffer = b""

    def ask(self, do: str, timeout: float = 600.0, **fields: Any) -> dict[str, Any]:
        """Returns the reply to a request.

        Raises:
          WorkerError: the worker replied with an error, ended, or took longer than `timeout`
            seconds.
        """
        self._send(do, **fields)
        line = self._read_line(timeout)
        try:
            reply = json.loads(line)
        except ValueError:
            raise WorkerError(
                f"{self.name} wrote {line[:200]!r}; expected one line of JSON"
            ) from None
        if "error" in reply:
            raise WorkerError(f"{self.name}: {reply['error']}")
        return reply

    def _send(self, do: str, **fields: Any) -> None:
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise WorkerError(f"{self.name} has ended{self._last_log_line()}") from None

    def _read_line(self, timeout: float) -> bytes:
        stdout, deadline = self._process.stdout, time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                # A late reply would be taken for that to the next request.
                self._process.kill()
                raise WorkerError(f"{self.name} did not reply within its limit of {timeout:.0f} s")
            chunk = os.read(stdout.fileno(), 65_536)
            if not chunk:
                self._process.wait()
                raise WorkerError(f"{self.name} has ended{self._last_log_line()}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _last_log_line(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()[:300]}" if lines else ""
        return f" (exit code {self._process.returncode}){last}"

    def close(self) -> None:
        """Asks the worker to end, and kills it if it does not."""
        with contextlib.suppress(WorkerError):
            self._send("quit")
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def serve(start: Callable[[], Handlers]) -> None:
    """Replies to requests on stdin, one JSON object a line, until "quit" or the end of stdin.

    Args:
      start: returns the handlers by request; called once stdout is safe from prints of libraries.
        "drop" is called at the end.
    """
    # Whatever libraries print goes to stderr; only replies go to the benchmark.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    handlers = start()
    for line in sys.stdin:
        if json.loads(line).get("do") == "quit":
            break
        replies.write(json.dumps(reply_to(handlers, line)) + "\n")
    handlers["drop"]({})


def reply_to(handlers: Handlers, line: str) -> dict[str, Any]:
    """Returns the reply to one line; an exception becomes {"error": one line}."""
    try:
        request = json.loads(line)
        if request["do"] not in handlers:
            raise ValueError(f"no request {request['do']!r}; choose from: {', '.join(handlers)}")
        return handlers[request["do"]](request)
    except Exception as error:  # whatever it is, the benchmark goes on with the other cases
        what = " ".join(str(error).split())[:500]
        return {"error": f"{type(error).__name__}: {what}"}


def reset_peak_memory() -> None:
    """Resets `peak_memory` where the system can, so that memory of compilation does not count."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Returns the largest resident set of this process since `reset_peak_memory`, in bytes."""
    # ru_maxrss would include memory of the process before its exec.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)
