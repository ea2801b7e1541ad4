"""A worker in a process of its own, asked by JSON lines."""

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# What a worker may still say when it is asked to end.
_GRACE = 5.0


class Failed(Exception):
    """A worker answered with an error, or not at all; one line."""


class Child:
    """A running worker.

    Args:
      name: its side, for messages.
      command: words of the command.
      log: file for what it prints on stderr.
      environment: variables set beside those of this process.
      folder: it runs in.
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
        self._rest = b""

    def ask(self, do: str, timeout: float = 600.0, **fields: Any) -> dict[str, Any]:
        """Returns the answer to a request.

        Raises:
          Failed: the worker answered an error, ended, or took longer than `timeout` seconds.
        """
        self.send(do, **fields)
        return self.answer(timeout)

    def send(self, do: str, **fields: Any) -> None:
        """Sends a request whose answer is read later."""
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise Failed(f"{self.name} has ended{self._last_words()}") from None

    def answer(self, timeout: float = 600.0) -> dict[str, Any]:
        """Returns the answer to the request sent last; raises as `ask` does."""
        line = self._line(time.monotonic() + timeout, timeout)
        try:
            answer = json.loads(line)
        except ValueError:
            raise Failed(f"{self.name} said {line[:200]!r}; expected one line of JSON") from None
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer

    def _line(self, deadline: float, timeout: float) -> bytes:
        stdout = self._process.stdout
        while b"\n" not in self._rest:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                # Its answer would come to another question.
                self._process.kill()
                raise Failed(f"{self.name} gave no answer within {timeout:.0f} s, the time it had")
            part = os.read(stdout.fileno(), 65_536)
            if not part:
                self._process.wait()
                raise Failed(f"{self.name} has ended{self._last_words()}")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()[:300]}" if lines else ""
        return f" (exit code {self._process.returncode}){last}"

    def close(self) -> None:
        """Asks the worker to end, and ends it if it does not."""
        with contextlib.suppress(Failed):
            self.send("quit")
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
