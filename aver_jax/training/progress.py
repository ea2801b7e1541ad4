"""The numbers of a training under way: fetched late, checked, logged, shown."""

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import optax
from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.runs.metrics_log import MetricsLog


@dataclasses.dataclass
class _Step:
    """A step that was read but not yet logged.

    Attributes:
      number: of the step.
      values: its metrics.
      seconds: of training that it took; None until the time since the last line is shared out.
      waited: seconds of them that were waited for its batch.
    """

    number: int
    values: dict[str, float]
    seconds: float | None = None
    waited: float = 0.0


class Progress:
    """Collects step metrics, writes them to the run's logs and shows a bar with clips/s.

    `data_wait` of a line is the share of the wall time since the line before it (validations left
    out, compilation not) in which the training loop waited for its next batch. An accelerator may
    work on the step before meanwhile, so it is the most that data can have cost.

    Args:
      workdir: the run folder.
      start: steps already done.
      total: steps of the whole run.
      batch_size: clips per step, over all devices.
      steps_per_epoch: steps.
      schedule: step -> learning rate.
      quiet: show no bar.
    """

    def __init__(
        self,
        workdir: Path,
        start: int,
        total: int,
        batch_size: int,
        steps_per_epoch: int,
        schedule: optax.Schedule,
        quiet: bool,
    ):
        self._batch_size = batch_size
        self._steps_per_epoch = steps_per_epoch
        self._schedule = schedule
        self._quiet = quiet or jax.process_index() != 0
        self._log = MetricsLog(workdir, start) if jax.process_index() == 0 else None
        self._bar = tqdm(
            total=total * batch_size,
            initial=start * batch_size,
            unit=" clips",
            # A log file wants lines, not a bar.
            disable=quiet or jax.process_index() != 0 or not sys.stderr.isatty(),
            dynamic_ncols=True,
        )
        self._shown: dict[str, str] = {}
        self._pending: tuple[int, int, dict[str, jax.Array]] | None = None
        self._window: list[_Step] = []
        # Of training, validations left out, not yet shared out among the steps.
        self._seconds = 0.0
        self._waited = 0.0
        self._since = time.perf_counter()
        self._startup: float | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Times the block as data wait."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def add(self, step: int, metrics: dict[str, jax.Array], steps: int = 1) -> None:
        """Takes the metrics of a step just dispatched and reads those of the step before it.

        With `steps` = K they are of K steps dispatched together, arrays [K], the last being `step`.
        """
        previous, self._pending = self._pending, (step, steps, metrics)
        self._read(previous)
        self._bar.update(steps * self._batch_size)

    def started(self, began: float) -> None:
        """Takes the start-up, from `began` (`time.perf_counter`) to now, for the next line."""
        self._startup = seconds = time.perf_counter() - began
        if not self._quiet:
            tqdm.write(f"first step done after {seconds:.1f} s", file=sys.stderr)

    def settle(self) -> None:
        """Reads what is still on the device; afterwards every step so far is known to be finite."""
        pending, self._pending = self._pending, None
        self._read(pending)

    def _read(self, pending: tuple[int, int, dict[str, jax.Array]] | None) -> None:
        if pending is None:
            return
        last, steps, metrics = pending
        read = {name: np.reshape(values, steps) for name, values in jax.device_get(metrics).items()}
        for place in range(steps):
            number = last - steps + 1 + place
            values = {name: float(array[place]) for name, array in read.items()}
            for name in ("loss", "grad_norm"):
                if not math.isfinite(values[name]):
                    raise self.diverged(number, f"the training {name} is {values[name]}")
            self._window.append(_Step(number, values))

    def diverged(self, step: int, what: str) -> UserError:
        """Returns the error of a training whose numbers are not finite."""
        rate = float(self._schedule(step - 1))
        return UserError(
            f"{what} at step {step} (learning rate {rate:.3g}); no checkpoint was saved of it: "
            "train in a new --workdir with a lower config.optimizer.lr, a longer "
            "config.schedule.warmup_epochs or a config.optimizer.clip_norm"
        )

    def log_training(self, step: int, plateau_scale: float) -> None:
        """Writes the averages of the steps since the last call, up to `step`."""
        self.settle()
        self.pause()
        self._share_out()
        line = [one for one in self._window if one.number <= step]
        self._window = self._window[len(line) :]
        means = {
            f"train/{name}": sum(one.values[name] for one in line) / len(line)
            for name in line[0].values
        }
        seconds = sum(one.seconds for one in line)
        wait = sum(one.waited for one in line) / seconds
        startup, self._startup = self._startup, None
        self._write(
            step,
            {
                **means,
                "learning_rate": float(self._schedule(step - 1)) * plateau_scale,
                "clips_per_second": len(line) * self._batch_size / seconds,
                "data_wait": wait,
                **({} if startup is None else {"startup_seconds": startup}),
            },
        )
        self._show(loss=means["train/loss"], war=means["train/war"], data_wait=wait)

    def _share_out(self) -> None:
        """Divides the time since the last line among its steps: those of a dispatch are equal."""
        new = [one for one in self._window if one.seconds is None]
        if new:
            for one in new:
                one.seconds, one.waited = self._seconds / len(new), self._waited / len(new)
            self._seconds = self._waited = 0.0

    def pause(self) -> None:
        """Counts the seconds up to here as training; what follows, until `resume`, is not."""
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now

    def resume(self) -> None:
        """Goes on counting after a validation."""
        self._since = time.perf_counter()

    def log_scores(self, step: int, scores: dict[str, float]) -> None:
        """Writes the scores of a validation."""
        self._write(step, scores)
        self._show(val_loss=scores["validation/loss"], val_war=scores["validation/war"])
        if self._bar.disable and not self._quiet:
            print(
                f"step {step}: validation loss {scores['validation/loss']:.3f}, "
                f"WAR {scores['validation/war']:.3f}",
                file=sys.stderr,
            )

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._log:
            self._log.write(step, {"epoch": step / self._steps_per_epoch, **values})

    def _show(self, **values: float) -> None:
        self._shown |= {name: f"{value:.3f}" for name, value in values.items()}
        self._bar.set_postfix(self._shown, refresh=False)

    def close(self) -> None:
        """Ends the bar and flushes the logs."""
        self._bar.close()
        if self._log:
            self._log.close()
