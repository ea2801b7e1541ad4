"""Stopping on a signal: a preempted or interrupted run saves first."""

import contextlib
import signal
from collections.abc import Iterator


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a request; `number` is 0 until then."""

    def __init__(self):
        self.number = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator["StopSignal"]:
        """Listens inside the block; outside the main thread, where it cannot, does nothing."""

        def ask(number, _frame):
            self.number = number
            # A second one ends the process at once.
            signal.signal(number, signal.SIG_DFL)

        try:
            previous = {n: signal.signal(n, ask) for n in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:
            previous = {}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
