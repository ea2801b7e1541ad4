"""The training job: from a prepared dataset and a config to a run folder."""

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aver_jax import config as configs
from aver_jax.errors import UserError
from aver_jax.evaluation.job import validation_evaluator
from aver_jax.finetune.init_from_run import initialize_from
from aver_jax.finetune.lineage import check_origins, held_leaves
from aver_jax.input import Dataset, Split, clips_cut, open_dataset, split, steps_per_epoch
from aver_jax.models import init_variables
from aver_jax.models.counting import parameter_count
from aver_jax.runs.checkpoints import Checkpoints, abstract_like
from aver_jax.runs.run_folder import model_of, write_config
from aver_jax.runtime.compilation_cache import keep_compiled
from aver_jax.runtime.mesh import (
    check_batch_size,
    join_processes,
    largest_of_processes,
    make_mesh,
    replicated,
)
from aver_jax.runtime.preemption import StopSignal
from aver_jax.runtime.step_trace import StepTrace, parse_range
from aver_jax.training import compiled_step
from aver_jax.training.batches import open_feed
from aver_jax.training.preflight import (
    check_modalities,
    check_same_run,
    check_settings,
    check_statistics,
    has_begun,
)
from aver_jax.training.progress import Progress
from aver_jax.training.state import TrainState
from data_prep.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver train`."""
    parser.add_argument(
        "--config", required=True, help="path or shipped name, e.g. timesformer.py:size=demo"
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, help="run folder; an unfinished run in it goes on"
    )
    parser.add_argument(
        "--profile",
        metavar="START:STOP",
        help="trace the steps from START up to, not including, STOP (counted from 1; 11:16 are "
        "five steps, and not the first, which compile) into RUN/profile, for TensorBoard and "
        "Perfetto; of steps that are dispatched together all or none are traced",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    fields = configs.flat_fields(configs.base_config().to_dict())
    parser.epilog = "\n".join(
        [
            "Any field of the config can be set, as in --config.optimizer.lr=1e-4. They are, with",
            "their values where the config sets none (config.model and the augmentations in",
            "config.frontend have more):",
            "",
            *(f"  --config.{name}={value}" for name, value in fields.items()),
        ]
    )


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `aver train`; `overrides` are the words that begin with "--config."."""
    config = configs.override(configs.load_config(args.config), overrides)
    profile = parse_range(args.profile) if args.profile is not None else None
    train(config, args.workdir, profile=profile)
    print(f"run folder: {args.workdir}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The length of a run, in steps."""

    per_epoch: int
    total: int
    per_validation: int


def _plan(config: ConfigDict, parts: Split) -> _Plan:
    per_epoch = steps_per_epoch(parts.train, config.batch_size)
    return _Plan(
        per_epoch=per_epoch,
        total=max(1, round(config.epochs * per_epoch)),
        per_validation=max(1, round(config.evaluation.every_epochs * per_epoch)),
    )


def _facts(config: ConfigDict, dataset: Dataset, parts: Split) -> dict[str, Any]:
    """Returns what config.json holds beside the experiment."""
    return {
        "classes": list(dataset.classes),
        "protocol": parts.name,
        "modalities": list(config.data.modalities),
        "preparation": dict(dataset.preparation),
        "dataset": {
            "name": dataset.name,
            "clips": len(dataset),
            "index_sha256": dataset.fingerprint,
        },
    }


def _initial_variables(
    config: ConfigDict, model: Any, program: compiled_step.Training, dataset: Dataset, parts: Split
) -> tuple[dict[str, Any], list[str]]:
    """Returns what a run begins with, and lines that say where it comes from."""
    held = held_leaves(config, model, program.shapes)
    notes = check_origins(config, dataset, parts, program.shapes["params"], held)
    variables = init_variables(model, jax.random.key(config.seed))
    variables, report = initialize_from(variables, config.init, dataset.classes, held)
    return variables, [*report, *notes]


def _state(
    config: ConfigDict,
    program: compiled_step.Training,
    checkpoints: Checkpoints,
    mesh: jax.sharding.Mesh,
    variables: dict[str, Any] | None,
) -> tuple[TrainState, int]:
    """Returns the state of the initial variables, or without them the last saved, and its step."""
    sharding = replicated(mesh)
    if variables is None:
        step = checkpoints.step("last")
        expected = jax.eval_shape(program.create, program.shapes, config.seed)
        saved = jax.eval_shape(TrainState.items, expected)
        items = checkpoints.restore(step, abstract_like(saved, sharding))
        seed = jax.device_put(np.uint32(config.seed), sharding)
        return TrainState.from_items(items, seed, expected), step
    return jax.device_put(program.create(variables, config.seed), sharding), 0


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), params))


def _check_finite(state: TrainState, progress: Progress, step: int) -> None:
    """Raises UserError if a parameter is not finite: the loss tells only one step later."""
    if not _all_finite(state.variables["params"]):
        raise progress.diverged(step, "a parameter is not finite")


def _write_report(workdir: Path) -> None:
    if jax.process_index() == 0:
        from aver_jax.report.sections import training_report  # matplotlib is slow to import

        training_report(workdir)


def _steps_together(config: ConfigDict, plan: _Plan, done: int) -> int:
    """Returns how many steps the next dispatch does: none goes past a validation or the end.

    There are two programs, of `config.steps_per_dispatch` steps and of one.
    """
    validation = (done // plan.per_validation + 1) * plan.per_validation
    left = min(validation, plan.total) - done
    return config.steps_per_dispatch if config.steps_per_dispatch <= left else 1


def _header(
    config: ConfigDict,
    dataset: Dataset,
    parts: Split,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    plan: _Plan,
) -> str:
    parameters = parameter_count(state.variables)
    cut = clips_cut(dataset, parts.train, config.data.max_seconds)
    devices = counted(mesh.size, f"{mesh.devices.flat[0].device_kind} device")
    lines = [
        f"{config.model.name}: {parameters:,} parameters, {len(dataset.classes)} classes",
        f"{dataset.name}: {parts.name} fold {parts.fold}, target {parts.target}; "
        f"{len(parts.train)} clips to train, {len(parts.validation)} to validate, "
        f"{len(parts.test)} to test, {parts.dropped} dropped (no majority label), "
        f"{cut} cut to {config.data.max_seconds:g} s",
        f"{plan.total} steps of {config.batch_size} clips ({plan.per_epoch} an epoch) on {devices}",
    ]
    return "\n".join(lines)


def train(
    config: ConfigDict,
    workdir: Path,
    quiet: bool = False,
    report: bool = True,
    profile: tuple[int, int] | None = None,
) -> Path:
    """Trains a model, or goes on with the run in `workdir`.

    Args:
      config: an experiment, see `aver_jax.config.base_config`.
      workdir: the run folder: config.json, metrics.jsonl, tensorboard/, checkpoints/, report/.
      quiet: no progress bar and no messages.
      report: also write RUN/report; an experiment of many runs has a report of its own.
      profile: (START, STOP), steps to trace into RUN/profile, see `step_trace.StepTrace`.

    Returns:
      The run folder.

    Raises:
      UserError: a config or dataset that cannot be trained on, or a loss that is not finite.
      SystemExit: a signal asked to stop; a checkpoint was saved.
    """
    began = time.perf_counter()
    if config.distributed:
        join_processes()

    def say(text: str) -> None:
        if not quiet and jax.process_index() == 0:
            print(text, file=sys.stderr)

    workdir = Path(workdir)
    config = config.copy_and_resolve_references()
    check_settings(config, workdir)
    # The run folder is used from other places than this one.
    with config.unlocked():
        config.data.path = str(Path(config.data.path).resolve())
        for subtree, folder in config.init.items():
            config.init[subtree] = folder and str(Path(folder).resolve())
    dataset = open_dataset(config.data.path)
    parts = split(dataset, config.data.protocol, config.data.fold, config.data.target)
    mesh = make_mesh()
    check_batch_size(config.batch_size, mesh, config.optimizer.accumulate)
    plan = _plan(config, parts)
    model = model_of(config, len(dataset.classes))
    check_modalities(config, model)
    facts = _facts(config, dataset, parts)
    check_same_run(workdir, config, facts)
    program = compiled_step.training(model, config, plan.per_epoch, mesh)
    check_statistics(config, program.shapes)
    keep_compiled(workdir.resolve().parent)
    variables, origins = None, []
    # A run that goes on needs nothing but its own folder: not the runs it started from.
    if not has_begun(workdir):
        variables, origins = _initial_variables(config, model, program, dataset, parts)
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.select)
    try:
        state, start = _state(config, program, checkpoints, mesh, variables)
    except UserError:
        checkpoints.close()
        raise
    del variables  # the state has them
    hidden = quiet or jax.process_index() != 0
    try:
        trace = StepTrace(workdir, profile, start, plan.total, hidden)
    except UserError:
        checkpoints.close()
        raise
    if jax.process_index() == 0:
        write_config(workdir, config, facts)
    say("\n".join([_header(config, dataset, parts, state, mesh, plan), *origins]))
    if start >= plan.total:
        checkpoints.close()
        if report and not (workdir / "report" / "index.html").exists():
            _write_report(workdir)
        say(f"finished at step {start}; nothing to do")
        return workdir
    if start:
        say(f"goes on after step {start}")

    evaluator = validation_evaluator(model, config, dataset, parts, mesh)
    try:
        feed = open_feed(config, dataset, parts, mesh, start, None if hidden else say)
    except BaseException:
        checkpoints.close()
        raise
    progress = Progress(
        workdir, start, plan.total, config.batch_size, plan.per_epoch, program.schedule, quiet
    )
    try:
        with trace, StopSignal().listening() as stop:
            number = start
            while number < plan.total:
                count = _steps_together(config, plan, number)
                with progress.waiting():
                    batch = feed.take(count)
                number += count
                with trace.step(number, count):
                    step = program.steps(feed.layout, count)
                    state, metrics = step(state, batch, feed.resident)
                trace.dispatched(number, metrics)
                # The device works on this step while the host reads the previous one's metrics.
                progress.add(number, metrics, count)
                if number - count == start:
                    progress.settle()
                    progress.started(time.perf_counter() - began)
                last = number == plan.total
                to_log = [
                    one
                    for one in range(number - count + 1, number + 1)
                    if one == plan.total or one % config.log_every_steps == 0
                ]
                for one in to_log:
                    progress.log_training(one, float(state.plateau.scale))
                validated = last or number % plan.per_validation == 0
                if validated:
                    progress.settle()
                    _check_finite(state, progress, number)
                    progress.pause()
                    scores = dict(evaluator.run(state.evaluation_variables()))
                    progress.log_scores(number, scores)
                    if config.schedule.name == "plateau":
                        plateau = program.after_validation(state.plateau, scores["validation/loss"])
                        state = dataclasses.replace(state, plateau=plateau)
                    checkpoints.save(number, state.items(), scores)
                    progress.resume()
                # Several processes stop together, and do not wait for each other at every step.
                if jax.process_count() == 1 or to_log:
                    signal_number = largest_of_processes(stop.number)
                    if signal_number and not validated:
                        progress.settle()
                        _check_finite(state, progress, number)
                        checkpoints.save(number, state.items(), None)
                    if signal_number and not last:
                        say(f"\nsaved after step {number}; the same command goes on from there")
                        raise SystemExit(128 + signal_number)
    finally:
        feed.close()
        progress.close()
        checkpoints.close()
    if report:
        _write_report(workdir)
        say(f"report: {workdir / 'report' / 'index.html'}")
    return workdir
