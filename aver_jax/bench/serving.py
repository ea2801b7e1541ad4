"""The worker's end of the benchmark's protocol, the same for every side. Knows no jax."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

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
