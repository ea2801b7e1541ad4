"""What a training does around its steps: shows and logs them, traces some, stops on a signal."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aver_jax.runtime.data_parallel import largest_of_processes
from aver_jax.runtime.preemption import StopSignal
from aver_jax.runtime.step_trace import StepTrace
from aver_jax.training.progress import Progress
from aver_jax.training.state import TrainState
from aver_jax.training.step_plan import Chunk, Plan


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), params))


class Hooks(contextlib.ExitStack):
    """Progress, trace and preemption of a training; a context that closes them.

    Args:
      workdir: the run folder.
      plan: of the run.
      start: steps already done.
      batch_size: clips of a step.
      schedule: step -> learning rate.
      profile: (START, STOP), steps to trace, or None.
      began: `time.perf_counter()` when the training was called.
      quiet: show nothing.
    """

    def __init__(
        self,
        workdir: Path,
        plan: Plan,
        start: int,
        batch_size: int,
        schedule: optax.Schedule,
        profile: tuple[int, int] | None,
        began: float,
        quiet: bool,
    ):
        super().__init__()
        self._start, self._began = start, began
        hidden = quiet or jax.process_index() != 0
        self._trace = StepTrace(workdir, profile, start, plan.total, hidden)
        self._progress = Progress(
            workdir, start, plan.total, batch_size, plan.per_epoch, schedule, quiet
        )
        self.callback(self._progress.close)
        self.enter_context(self._trace)
        self._stop = self.enter_context(StopSignal().listening())

    def data_wait(self) -> contextlib.AbstractContextManager:
        """Returns a context whose time counts as waiting for data."""
        return self._progress.waiting()

    def step(self, chunk: Chunk) -> contextlib.AbstractContextManager:
        """Returns a context for the dispatch of a chunk, traced if it is among the steps asked."""
        return self._trace.step(chunk.last, chunk.size)

    def log(self, chunk: Chunk, metrics: dict[str, jax.Array], state: TrainState) -> None:
        """Takes the metrics of a dispatch and writes the lines that are due.

        The device works on this dispatch while the host reads the metrics of the one before it.
        """
        self._trace.dispatched(chunk.last, metrics)
        self._progress.add(chunk.last, metrics, chunk.size)
        if chunk.first == self._start + 1:
            self._progress.settle()
            self._progress.started(self._began)
        for step in chunk.logged:
            self._progress.log_training(step, float(state.plateau.scale))

    @contextlib.contextmanager
    def validation(self, chunk: Chunk, state: TrainState) -> Iterator[Callable[..., None]]:
        """Opens a context for a validation, whose time does not count as training.

        Gives a function that writes the scores. Raises UserError if a number is not finite.
        """
        self._check_finite(chunk, state)
        self._progress.pause()
        yield lambda scores: self._progress.log_scores(chunk.last, scores)
        self._progress.resume()

    def stop_signal(self, chunk: Chunk, state: TrainState) -> int:
        """Returns the number of the signal that asks to stop after this chunk; 0 if none does.

        Several processes stop together, and ask each other only at the steps that are logged.
        Raises UserError if the state that is then to be saved is not finite.
        """
        if jax.process_count() > 1 and not chunk.logged:
            return 0
        number = largest_of_processes(self._stop.number)
        if number and not chunk.validates:
            self._check_finite(chunk, state)
        return number

    def _check_finite(self, chunk: Chunk, state: TrainState) -> None:
        self._progress.settle()
        # The loss shows it only one step later.
        if not _all_finite(state.variables["params"]):
            raise self._progress.diverged(chunk.last, "a parameter is not finite")
