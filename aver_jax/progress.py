"""The numbers of a training under way: fetched late, checked, logged, shown."""

import math
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
        self._log = MetricsLog(workdir, start) if jax.process_index() == 0 else None
        self._bar = tqdm(
            total=total * batch_size,
            initial=start * batch_size,
            unit=" clips",
            unit_scale=True,
            disable=quiet or jax.process_index() != 0,
            dynamic_ncols=True,
        )
        self._shown: dict[str, str] = {}
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Begins a new window of averages; what happened since the last step is not training."""
        self._window: list[dict[str, float]] = []
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
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(values[name])]
        if bad:
            raise UserError(
                f"the training {bad[0]} is {values[bad[0]]} at step {step} (learning rate "
                f"{float(self._schedule(step - 1)):.3g}); the last checkpoint is from before it: "
                "lower config.optimizer.lr, lengthen config.schedule.warmup_epochs or set "
                "config.optimizer.clip_norm"
            )
        self._window.append(values)

    def log_training(self, step: int, plateau_scale: float) -> None:
        """Writes the averages of the steps since the last call."""
        self.settle()
        seconds = time.perf_counter() - self._since
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
                "clips_per_second": steps * self._batch_size / seconds,
            },
        )
        self._show(loss=means["train/loss"], war=means["train/war"])
        self.restart_clock()

    def log_scores(self, step: int, scores: dict[str, float]) -> None:
        """Writes the scores of a validation."""
        self._write(step, scores)
        self._show(val_loss=scores["validation/loss"], val_war=scores["validation/war"])
        self.restart_clock()

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
