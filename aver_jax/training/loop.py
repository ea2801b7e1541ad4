"""The train loop: what happens in a step, when it validates and saves, what a signal does."""

import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import jax
from ml_collections import ConfigDict

from aver_jax.runs.checkpoints import Checkpoints, DamagedCheckpoint, last_saved_step
from aver_jax.runs.run_folder import write_config
from aver_jax.runtime.data_parallel import join_processes
from aver_jax.runtime.step_trace import check_range
from aver_jax.training.hooks import Hooks
from aver_jax.training.setup import Run, set_up
from aver_jax.training.state import TrainState


def train(
    config: ConfigDict,
    workdir: Path,
    quiet: bool = False,
    report: bool = True,
    profile: tuple[int, int] | None = None,
    extend: bool = False,
) -> Path:
    """Trains a model, or resumes the run in `workdir`.

    Args:
      config: an experiment, see `aver_jax.config.base_config`.
      workdir: the run folder: config.json, metrics.jsonl, tensorboard/, checkpoints/, report/.
      quiet: no progress bar and no messages.
      report: also write RUN/report; an experiment of many runs has a report of its own.
      extend: go on with a finished run for more epochs, with another schedule or learning rate if
        the config says so: they hold as if the run had begun with them.
      profile: (START, STOP), steps to trace into RUN/profile, see `step_trace.StepTrace`.

    Returns:
      The run folder.

    Raises:
      UserError: a config or dataset that cannot be trained on, or a loss that is not finite.
      SystemExit: a signal asked to stop; a checkpoint was saved.
    """
    began, workdir = time.perf_counter(), Path(workdir)
    if config.distributed:
        join_processes()
    quiet = quiet or jax.process_index() != 0
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))

    run = set_up(config, workdir, extend)
    saved, plan = last_saved_step(workdir), run.plan
    check_range(profile, saved or 0, plan.total)
    # A resumed run needs nothing but its own folder: not the runs it started from.
    state, notes = run.first_state() if saved is None else (None, [])
    with ExitStack() as on_exit:
        checkpoints = on_exit.enter_context(
            Checkpoints(workdir / "checkpoints", run.config.evaluation.select)
        )
        if saved is not None:
            state, saved = _last_good_state(run, checkpoints, saved)
        start = saved or 0
        if jax.process_index() == 0:
            write_config(workdir, run.config, run.metadata)
        say("\n".join([run.header(), *notes]))
        if start >= plan.total:
            say(f"finished at step {start}; nothing to do")
        elif start:
            say(f"resumes after step {start} of {plan.total}")
        if start < plan.total:
            evaluator = run.evaluator()
            batches = on_exit.enter_context(run.batches(start, None if quiet else say))
            hooks = on_exit.enter_context(
                Hooks(
                    workdir, plan, start, run.config.batch_size, run.train_step.schedule,
                    profile, began, quiet,
                )
            )  # fmt: skip
        for chunk in plan.chunks(start):
            with hooks.data_wait():
                batch = batches.take(chunk.size)
            with hooks.step(chunk):
                step = run.train_step.compiled(batches.layout, chunk.size)
                state, metrics = step(state, batch, batches.clips)
            hooks.log(chunk, metrics, state)
            if chunk.validates:
                with hooks.validation(chunk, state) as log_scores:
                    scores = dict(evaluator.run(state.evaluation_variables()))
                    log_scores(scores)
                    if run.config.schedule.name == "plateau":
                        plateau = run.train_step.reduce_lr_on_plateau(
                            state.plateau, scores["validation/loss"]
                        )
                        state = replace(state, plateau=plateau)
                    checkpoints.save(chunk.last, state.items(), scores)
            if signal := hooks.stop_signal(chunk, state):
                if not chunk.validates:
                    checkpoints.save(chunk.last, state.items(), None)
                if not chunk.is_final:
                    say(f"\nsaved after step {chunk.last}; the same command resumes from there")
                    raise SystemExit(128 + signal)
    if report and (start < plan.total or not (workdir / "report" / "index.html").exists()):
        _write_report(workdir)
        say(f"report: {workdir / 'report' / 'index.html'}")
    return workdir


def _last_good_state(run: Run, checkpoints: Checkpoints, step: int) -> tuple[TrainState, int]:
    """Returns the state after `step`, or after the last step before it that is not damaged.

    Damaged steps are set aside, so that the run can save them again. Several processes leave them
    where they are: one of them cannot tell what the others have read.

    Raises:
      UserError: a checkpoint of another model.
      DamagedCheckpoint: no step is left.
    """
    while True:
        try:
            return run.restored_state(checkpoints, step), step
        except DamagedCheckpoint as error:
            older = [other for other in checkpoints.steps() if other < step]
            if not older or jax.process_count() > 1:
                raise
            moved = checkpoints.set_aside(step)
            print(
                f"{error}; it is set aside in {moved}, and the run goes on after step {older[-1]}",
                file=sys.stderr,
            )
            step = older[-1]


def _write_report(workdir: Path) -> None:
    if jax.process_index() == 0:
        from aver_jax.report.sections import training_report  # matplotlib is slow to import

        training_report(workdir)
