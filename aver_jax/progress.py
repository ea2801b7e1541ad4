"""The numbers of a training under way: fetched late, checked, logged, shown."""

import math
import sys
import time
from pathlib import Path

import jax
import optax
from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.logs import MetricsLog


class Progress:
    """Collects step metrics, writes them to the run's logs and shows a bar with clips/s.

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
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._window: list[dict[str, float]] = []
        self._seconds = 0.0  # of training in this window, validations left out
        self._since = time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step just dispatched and reads those of the step before it."""
        previous, self._pending = self._pending, (step, metrics)
        self._read(previous)
        self._bar.update(self._batch_size)

    def settle(self) -> None:
        """Reads what is still on the device; afterwards every step so far is known to be finite."""
        pending, self._pending = self._pending, None
        self._read(pending)

    def _read(self, pending: tuple[int, dict[str, jax.Array]] | None) -> None:
        if pending is None:
            return
        step, metrics = pending
        values = {name: float(value) for name, value in metrics.items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise self.diverged(step, f"the training {name} is {values[name]}")
        self._window.append(values)

    def diverged(self, step: int, what: str) -> UserError:
        """Returns the error of a training whose numbers are not finite."""
        rate = float(self._schedule(step - 1))
        return UserError(
            f"{what} at step {step} (learning rate {rate:.3g}); no checkpoint was saved of it: "
            "train in a new --workdir with a lower config.optimizer.lr, a longer "
            "config.schedule.warmup_epochs or a config.optimizer.clip_norm"
        )

    def log_training(self, step: int, plateau_scale: float) -> None:
        """Writes the averages of the steps since the last call."""
        self.settle()
        self.pause()
        steps = len(self._window)
        means = {
            f"train/{name}": sum(values[name] for values in self._window) / steps
            for name in self._window[0]
        }
        self._write(
            step,
            {
                **means,
                "learning_rate": float(self._schedule(step - 1)) * plateau_scale,
                "clips_per_second": steps * self._batch_size / self._seconds,
            },
        )
        self._show(loss=means["train/loss"], war=means["train/war"])
        self._window, self._seconds = [], 0.0

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
