"""The training job: from a prepared dataset and a config to a run folder."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from aver_jax import config as configs
from aver_jax import optimizer as optimizers
from aver_jax import parallel
from aver_jax.checkpoints import Checkpoints, abstract_like
from aver_jax.errors import UserError
from aver_jax.evaluator import Evaluator, Forward
from aver_jax.frontend import training_inputs
from aver_jax.initialize import initialize_from
from aver_jax.input import (
    Dataset,
    Split,
    clips_cut,
    open_dataset,
    split,
    steps_per_epoch,
    training_batches,
)
from aver_jax.models import init_variables
from aver_jax.progress import Progress
from aver_jax.runs import model_of, read_config, write_config
from aver_jax.signals import StopSignal
from aver_jax.state import TrainState, create_state
from aver_jax.step import make_gradients, make_update

# What may change between two starts of one run: it does not change what the run computes.
_MAY_DIFFER = ("data.path", "data.threads", "log_every_steps", "evaluation.batch_size", "parallel")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver train`."""
    parser.add_argument(
        "--config", required=True, help="path or shipped name, e.g. timesformer.py:size=demo"
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, help="run folder; an unfinished run in it goes on"
    )
    parser.epilog = (
        "Any field of the config can be set: --config.data.path=DIR --config.optimizer.lr=1e-4"
    )


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `aver train`; `overrides` are the words that begin with "--config."."""
    config = configs.override(configs.load_config(args.config), overrides)
    train(config, args.workdir)
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


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {k: v for key, item in tree.items() for k, v in _flat(item, f"{prefix}{key}.").items()}


def _check_same_run(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError if the run folder holds a run of another config."""
    if not (workdir / "config.json").exists():
        return
    old, _ = read_config(workdir)
    before, now = _flat(configs.to_json(old)), _flat(configs.to_json(config))
    changed = [
        f"{name} was {before.get(name)}, now {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name not in _MAY_DIFFER
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changed[:3])}{more}); "
            "choose another --workdir"
        )


def _check_settings(config: ConfigDict) -> None:
    """Raises UserError for what can be told before any data is read."""
    if not config.data.path:
        raise UserError("no dataset given; set --config.data.path to a folder aver prepare made")
    configs.choice("config.optimizer.name", config.optimizer.name, optimizers.OPTIMIZERS)
    configs.choice("config.schedule.name", config.schedule.name, optimizers.SCHEDULES)
    configs.choice("config.parallel", config.parallel, parallel.MAPPINGS)
    side, frames = config.data.image_size, config.data.num_frames
    batch = {
        "frames": jax.ShapeDtypeStruct((1, frames, side, side, 3), np.uint8),
        "seed": jax.ShapeDtypeStruct((1,), np.uint32),
    }
    try:
        jax.eval_shape(lambda batch: training_inputs(config, batch), batch)
    except ValueError as error:
        raise UserError(f"config.{error}") from error


def _initial_state(
    config: ConfigDict, model: Any, schedule: optax.Schedule, classes: tuple[str, ...]
) -> tuple[TrainState, optax.GradientTransformation, list[str]]:
    """Returns the state before the first step, the optimizer, and where parameters came from."""
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    optimizers.check_freeze(shapes, tuple(config.freeze))
    variables = init_variables(model, jax.random.key(config.seed))
    variables, report = initialize_from(variables, config.init, classes)
    rule = optimizers.make_optimizer(config, variables["params"], schedule)
    state = create_state(variables, rule, optimizers.plateau(config), config.ema_decay)
    return state, rule, report


def _restore_last(
    checkpoints: Checkpoints, state: TrainState, mesh: jax.sharding.Mesh
) -> tuple[TrainState, int]:
    """Returns the last saved state and its step, or the given one and 0, laid over the mesh."""
    sharding = parallel.replicated(mesh)
    if not checkpoints.steps():
        return jax.device_put(state, sharding), 0
    step = checkpoints.step("last")
    restored = checkpoints.restore(step, abstract_like(state.items(), sharding))
    return TrainState.from_items(restored), step


def _batches(config: ConfigDict, dataset: Dataset, parts: Split, first_step: int) -> Iterator[dict]:
    data = config.data
    return training_batches(
        dataset,
        parts.train,
        parts.labels,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=first_step,
        num_frames=data.num_frames,
        image_size=data.image_size,
        min_slice=data.min_slice,
        max_seconds=data.max_seconds,
        modalities=data.modalities,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=data.threads,
    )


def _header(
    config: ConfigDict,
    dataset: Dataset,
    parts: Split,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    plan: _Plan,
) -> str:
    parameters = sum(x.size for x in jax.tree.leaves(state.variables["params"]))
    cut = clips_cut(dataset, parts.train, config.data.max_seconds)
    lines = [
        f"{config.model.name}: {parameters:,} parameters, {len(dataset.classes)} classes",
        f"{dataset.name}: {parts.name} fold {parts.fold}, target {parts.target}; "
        f"{len(parts.train)} clips to train, {len(parts.validation)} to validate, "
        f"{len(parts.test)} to test, {parts.dropped} dropped (no majority label), "
        f"{cut} cut to {config.data.max_seconds:g} s",
        f"{plan.total} steps of {config.batch_size} clips ({plan.per_epoch} an epoch) on "
        f"{mesh.size} {mesh.devices.flat[0].device_kind} device(s)",
    ]
    return "\n".join(lines)


def train(config: ConfigDict, workdir: Path, quiet: bool = False) -> Path:
    """Trains a model, or goes on with the run in `workdir`.

    Args:
      config: an experiment, see `aver_jax.config.base_config`.
      workdir: the run folder: config.json, metrics.jsonl, tensorboard/, checkpoints/, report/.
      quiet: no progress bar and no messages.

    Returns:
      The run folder.

    Raises:
      UserError: a config or dataset that cannot be trained on, or a loss that is not finite.
      SystemExit: a signal asked to stop; a checkpoint was saved.
    """

    def say(text: str) -> None:
        if not quiet and jax.process_index() == 0:
            print(text, file=sys.stderr)

    workdir = Path(workdir)
    _check_settings(config)
    dataset = open_dataset(config.data.path)
    parts = split(dataset, config.data.protocol, config.data.fold, config.data.target)
    mesh = parallel.make_mesh()
    parallel.check_batch_size(config.batch_size, mesh, config.optimizer.accumulate)
    plan = _plan(config, parts)
    schedule = optimizers.learning_rate(config, plan.per_epoch)
    model = model_of(config, len(dataset.classes))
    _check_same_run(workdir, config)
    state, rule, report = _initial_state(config, model, schedule, dataset.classes)
    facts = {
        "classes": list(dataset.classes),
        "protocol": parts.name,
        "modalities": list(config.data.modalities),
        "preparation": dataset.preparation,
    }
    write_config(workdir, config, facts)
    say("\n".join([_header(config, dataset, parts, state, mesh, plan), *report]))

    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.select)
    state, start = _restore_last(checkpoints, state, mesh)
    if start >= plan.total:
        checkpoints.close()
        say(f"finished at step {start}; nothing to do")
        return workdir
    if start:
        say(f"goes on after step {start}")

    step = parallel.map_step(
        make_gradients(model, config), make_update(rule, config), mesh, config.parallel
    )
    after_validation = jax.jit(optimizers.make_plateau_update(config))
    forward = Forward(model, config, mesh)
    evaluator = Evaluator(forward, config, dataset, parts.validation, parts.labels, "validation")
    batches = _batches(config, dataset, parts, start)
    progress = Progress(
        workdir, start, plan.total, config.batch_size, plan.per_epoch, schedule, quiet
    )
    try:
        with StopSignal().listening() as stop:
            for number in range(start + 1, plan.total + 1):
                state, metrics = step(state, next(batches))
                # The device works on this step while the host reads the previous one's metrics.
                progress.add(number, metrics)
                last = number == plan.total
                if last or number % config.log_every_steps == 0:
                    progress.log_training(number, float(state.plateau.scale))
                if last or number % plan.per_validation == 0:
                    # Nothing that is not finite gets validated or saved.
                    progress.settle()
                    scores = dict(evaluator.run(state.evaluation_variables()))
                    progress.log_scores(number, scores)
                    if config.schedule.name == "plateau":
                        plateau = after_validation(state.plateau, scores["validation/loss"])
                        state = dataclasses.replace(state, plateau=plateau)
                    checkpoints.save(number, state.items(), scores)
                elif stop.number:
                    progress.settle()
                    checkpoints.save(number, state.items(), None)
                if stop.number and not last:
                    say(f"\nsaved after step {number}; the same command goes on from there")
                    raise SystemExit(128 + stop.number)
    finally:
        batches.close()
        progress.close()
        checkpoints.close()
    if jax.process_index() == 0:
        from aver_jax.report.content import training_report  # matplotlib is slow to import

        say(f"report: {training_report(workdir)}")
    return workdir
