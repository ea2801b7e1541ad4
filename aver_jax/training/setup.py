"""What a training needs before its first step: checked, opened and built in one place."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from aver_jax.evaluation.evaluator import Evaluator
from aver_jax.evaluation.job import validation_evaluator
from aver_jax.finetune.init_from_run import initialize_from
from aver_jax.finetune.lineage import check_parent_runs, frozen_leaves
from aver_jax.input import Dataset, Split, clips_cut, open_dataset, split, steps_per_epoch
from aver_jax.models import init_variables
from aver_jax.models.counting import parameter_count
from aver_jax.runs.checkpoints import Checkpoints, abstract_like
from aver_jax.runs.run_folder import EXTENSIONS, model_of
from aver_jax.runtime.compilation_cache import use_compilation_cache
from aver_jax.runtime.data_parallel import check_batch_size, make_mesh, replicated
from aver_jax.training.batches import Batches, open_batches
from aver_jax.training.preflight import (
    check_modalities,
    check_same_run,
    check_settings,
    check_statistics,
)
from aver_jax.training.settings import DataSettings, StepSettings
from aver_jax.training.state import TrainState
from aver_jax.training.step import TrainStep, train_step
from aver_jax.training.step_plan import Plan
from data_prep.wording import counted


@dataclasses.dataclass(frozen=True)
class Run:
    """A training that is ready to begin or to resume.

    Attributes:
      config: the experiment, its paths absolute.
      metadata: what config.json holds beside it.
      dataset, split: the clips.
      mesh: the devices.
      plan: the steps.
      model: the flax module.
      train_step: its compiled step.
      data: how clips are read.
    """

    config: ConfigDict
    metadata: dict[str, Any]
    dataset: Dataset
    split: Split
    mesh: jax.sharding.Mesh
    plan: Plan
    model: Any
    train_step: TrainStep
    data: DataSettings

    def first_state(self) -> tuple[TrainState, list[str]]:
        """Returns the state before the first step, and lines that say which runs it comes from."""
        config, shapes = self.config, self.train_step.shapes
        frozen = frozen_leaves(config, self.model, shapes)
        notes = check_parent_runs(config, self.dataset, self.split, shapes["params"], frozen)
        variables = init_variables(self.model, jax.random.key(config.seed))
        variables, report = initialize_from(variables, config.init, self.dataset.classes, frozen)
        state = self.train_step.init(variables, config.seed)
        return jax.device_put(state, replicated(self.mesh)), [*report, *notes]

    def restored_state(self, checkpoints: Checkpoints, step: int) -> TrainState:
        """Returns the state that was saved after a step; UserError if it does not fit."""
        sharding = replicated(self.mesh)
        expected = jax.eval_shape(self.train_step.init, self.train_step.shapes, self.config.seed)
        saved = jax.eval_shape(TrainState.items, expected)
        items = checkpoints.restore(step, abstract_like(saved, sharding))
        seed = jax.device_put(np.uint32(self.config.seed), sharding)
        return TrainState.from_items(items, seed, expected)

    def evaluator(self) -> Evaluator:
        """Returns what scores the validation clips."""
        return validation_evaluator(self.model, self.config, self.dataset, self.split, self.mesh)

    def batches(self, start: int, say: Callable[[str], None] | None) -> Batches:
        """Returns the training batches after `start` steps; a context."""
        return open_batches(self.data, self.dataset, self.split, self.mesh, start, say)

    def header(self) -> str:
        """Returns what is trained on what, for people."""
        config, split, mesh = self.config, self.split, self.mesh
        cut = clips_cut(self.dataset, split.train, config.data.max_seconds)
        devices = counted(mesh.size, f"{mesh.devices.flat[0].device_kind} device")
        lines = [
            f"{config.model.name}: {parameter_count(self.train_step.shapes):,} parameters, "
            f"{len(self.dataset.classes)} classes",
            f"{self.dataset.name}: {split.name} fold {split.fold}, target {split.target}; "
            f"{len(split.train)} clips to train, {len(split.validation)} to validate, "
            f"{len(split.test)} to test, {split.dropped} dropped (no majority label), "
            f"{cut} cut to {config.data.max_seconds:g} s",
            f"{self.plan.total} steps of {config.batch_size} clips ({self.plan.per_epoch} an "
            f"epoch) on {devices}",
        ]
        if untrained := split.untrained(self.dataset.classes):
            lines.append(f"note: no clip to train is of {', '.join(untrained)}")
        return "\n".join(lines)


def set_up(config: ConfigDict, workdir: Path, extend: bool = False) -> Run:
    """Checks an experiment, opens its dataset and builds its step; writes nothing.

    The cheap checks come first.

    Args:
      config: the experiment.
      workdir: the run folder.
      extend: as of `loop.train`.

    Raises:
      UserError: a config or dataset that cannot be trained on, or a run folder of another run.
    """
    config = config.copy_and_resolve_references()
    check_settings(config, workdir)
    # The run folder is used from other places than this one.
    with config.unlocked():
        config.data.path = str(Path(config.data.path).resolve())
        for subtree, folder in config.init.items():
            config.init[subtree] = folder and str(Path(folder).resolve())
    data = DataSettings.from_config(config)
    dataset = open_dataset(config.data.path)
    clips = split(dataset, config.data.protocol, config.data.fold, config.data.target)
    mesh = make_mesh()
    check_batch_size(config.batch_size, mesh, config.optimizer.accumulate)
    plan = Plan.from_config(config, steps_per_epoch(clips.train, config.batch_size))
    model = model_of(config, len(dataset.classes))
    check_modalities(config, model)
    metadata = {
        "classes": list(dataset.classes),
        "protocol": clips.name,
        "modalities": [modality.array for modality in data.shape.modalities],
        "preparation": dict(dataset.preparation),
        "dataset": {
            "name": dataset.name,
            "clips": len(dataset),
            "index_sha256": dataset.fingerprint,
        },
    }
    extended = check_same_run(workdir, config, metadata, plan.per_epoch, extend)
    metadata |= {EXTENSIONS: extended} if extended else {}
    step = train_step(model, StepSettings.from_config(config), plan.per_epoch, mesh)
    check_statistics(config, step.shapes)
    use_compilation_cache()
    return Run(config, metadata, dataset, clips, mesh, plan, model, step, data)
