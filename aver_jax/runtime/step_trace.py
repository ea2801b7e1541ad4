"""A trace of some training steps, for TensorBoard and Perfetto."""

import sys
from pathlib import Path
from typing import Any

import jax

from aver_jax.errors import UserError

FOLDER = "profile"


def parse_range(text: str) -> tuple[int, int]:
    """Returns (START, STOP) of "START:STOP", steps from 1 on, STOP no longer traced.

    Raises:
      UserError: not two numbers, or no step between them.
    """
    first, colon, stop = text.partition(":")
    if not (colon and first.isdecimal() and stop.isdecimal() and 1 <= int(first) < int(stop)):
        raise UserError(
            f"--profile is {text!r}; expected START:STOP with 1 <= START < STOP, such as 11:16 "
            "for the steps 11 to 15"
        )
    return int(first), int(stop)


def check_range(steps: tuple[int, int] | None, done: int, total: int) -> None:
    """Raises UserError unless a run of `total` steps, `done` of them done, does these steps."""
    if steps is None:
        return
    first, stop = steps
    if not done < first <= total:
        raise UserError(
            f"--profile {first}:{stop} begins outside of the steps that this training does, "
            f"{done + 1} to {total}; give others, or another --workdir"
            if done < total
            else f"--profile {first}:{stop}: the run is finished at step {done}; give another "
            "--workdir"
        )
    if stop > total + 1:
        raise UserError(
            f"--profile {first}:{stop} ends behind the last step, {total}; expected STOP up to "
            f"{total + 1}"
        )


class StepTrace:
    """Traces the steps START ... STOP - 1 of a training into RUN/profile.

    Steps that are dispatched together are traced together: all those of a dispatch in which one of
    the steps is. Only process 0 traces. A context: however the training ends, what was traced is
    written.

    Args:
      workdir: the run folder.
      steps: (START, STOP), see `check_range`; None: nothing is traced.
      done: steps the run has done already.
      total: steps of the run.
      quiet: do not say where the trace is.
    """

    def __init__(
        self, workdir: Path, steps: tuple[int, int] | None, done: int, total: int, quiet: bool
    ):
        self._folder, self._quiet = workdir / FOLDER, quiet
        self._first, self._stop = steps or (total + 1, total + 1)
        self._began: int | None = None  # the first step of a trace under way
        self._last = done
        if jax.process_index() != 0:
            self._first = self._stop = total + 1

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(self, *_: Any) -> None:
        self._end()

    def step(self, number: int, count: int) -> jax.profiler.StepTraceAnnotation:
        """Returns a context for the dispatch of `count` steps, the last being `number`."""
        begins = number - count + 1
        if self._began is None and begins < self._stop and self._first <= number:
            # Perfetto's file is made as well; TensorBoard reads the other one.
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._began = begins
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def dispatched(self, number: int, outputs: Any) -> None:
        """Ends the trace after its last step, once the device has computed its outputs."""
        self._last = number
        if self._began is not None and number + 1 >= self._stop:
            jax.block_until_ready(outputs)
            self._end()

    def _end(self) -> None:
        if self._began is None:
            return
        began, self._began = self._began, None
        jax.profiler.stop_trace()
        self._first = self._stop  # once is enough
        files = sorted(
            self._folder.rglob("perfetto_trace.json.gz"), key=lambda p: p.stat().st_mtime
        )
        if not self._quiet and files:
            print(
                f"\ntrace of steps {began} to {self._last}: tensorboard --logdir {self._folder} "
                f"(with its profile plugin), or open {files[-1]} at ui.perfetto.dev",
                file=sys.stderr,
            )
