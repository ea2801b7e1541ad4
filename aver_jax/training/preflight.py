"""Validates config, data and run folder before a training begins."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from aver_jax.config import choice, differences, flat_fields, to_json
from aver_jax.errors import UserError
from aver_jax.evaluation.evaluator import SCORES
from aver_jax.frontend import training_inputs
from aver_jax.input import ClipShape
from aver_jax.modality import Modality, modalities_of
from aver_jax.models.norm import STATISTICS
from aver_jax.runs.checkpoints import last_saved_step
from aver_jax.runs.run_folder import EXTENSIONS, read_config
from aver_jax.runtime.data_parallel import MAPPINGS
from aver_jax.training.batches import CACHES
from aver_jax.training.optimizer import OPTIMIZERS, SCHEDULES
from aver_jax.training.step_plan import Plan

# What may change between two starts of one run: it does not change what the run computes.
# (Up to the order of float additions, for the last five. The dataset itself must be the same one.)
_MAY_DIFFER = (
    "data.path", "data.threads", "data.cache", "log_every_steps", "evaluation.batch_size",
    "parallel", "steps_per_dispatch", "model.unroll", "model.remat",
)  # fmt: skip

# What `aver train --extend` may change too.
_MAY_EXTEND = ("epochs", "schedule.", "optimizer.lr")

# Field -> its smallest and largest value.
_BOUNDS = {
    "seed": (0, 2**31 - 1),
    "data.num_frames": (1, 4096),
    "data.image_size": (1, 4096),
    "data.fold": (1, 1000),
    "data.min_slice": (1e-3, 1),
    "data.threads": (0, 1024),
    "data.max_seconds": (0.1, 3600),
    "data.cache_frames": (0, 4096),
    "batch_size": (1, 2**20),
    "epochs": (1e-9, 1e9),
    "optimizer.lr": (0, math.inf),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.clip_norm": (0, math.inf),
    "optimizer.accumulate": (1, 2**20),
    "schedule.warmup_epochs": (0, 1e9),
    "schedule.plateau_factor": (0, 1),
    "schedule.plateau_patience": (1, 10**9),
    "label_smoothing": (0, 1),
    "ema_decay": (0, 1),
    "evaluation.every_epochs": (1e-9, 1e9),
    "evaluation.batch_size": (1, 2**20),
    "evaluation.views": (1, 1000),
    "log_every_steps": (1, 10**9),
    "steps_per_dispatch": (1, 1000),
}


def check_settings(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError for what can be told before any data is read."""
    if not config.data.path:
        raise UserError("no dataset given; set --config.data.path to a folder aver prepare made")
    choice("config.optimizer.name", config.optimizer.name, OPTIMIZERS)
    choice("config.schedule.name", config.schedule.name, SCHEDULES)
    choice("config.parallel", config.parallel, MAPPINGS)
    if config.parallel == "pmap" and jax.process_count() > 1:
        # What pmap returns lies on a process' own devices: validation and checkpoints span all.
        raise UserError(
            f"config.parallel is 'pmap', with {jax.process_count()} processes; it trains in one: "
            "leave it at 'shard_map'"
        )
    known = [f"validation/{name}" for name in SCORES]
    choice("config.evaluation.select", config.evaluation.select, known)
    values = flat_fields(to_json(config))
    for name, (low, high) in _BOUNDS.items():
        if not low <= values[name] <= high:
            raise UserError(f"config.{name} is {values[name]}; expected {low} to {high}")
    shape = ClipShape.from_config(config.data)
    _check_cache(config, shape.modalities)
    arrays = {**shape.arrays, "seed": ((), np.uint32)}
    batch = {
        name: jax.ShapeDtypeStruct((1, *dims), dtype) for name, (dims, dtype) in arrays.items()
    }
    for folder in filter(None, config.init.values()):
        if last_saved_step(workdir) is None:
            read_config(Path(folder))
    try:
        jax.eval_shape(lambda batch: training_inputs(config, batch), batch)
    except ValueError as error:
        raise UserError(f"config.{error}") from error


def _check_cache(config: ConfigDict, modalities: tuple[Modality, ...]) -> None:
    data = config.data
    choice("config.data.cache", data.cache, CACHES)
    if data.cache != "none" and Modality.VIDEO in modalities and not data.cache_frames:
        raise UserError(
            f"config.data.cache is {data.cache!r} with config.data.cache_frames 0; a cache holds "
            "some evenly spaced frames of each clip: set --config.data.cache_frames=16, or another "
            "number"
        )
    if Modality.VIDEO in modalities and 0 < data.cache_frames < data.num_frames:
        raise UserError(
            f"config.data.cache_frames is {data.cache_frames}; expected at least the "
            f"{data.num_frames} frames of config.data.num_frames, or 0 for every frame of a clip"
        )
    if config.steps_per_dispatch > 1 and data.cache != "device":
        raise UserError(
            f"config.steps_per_dispatch is {config.steps_per_dispatch} with config.data.cache "
            f"{data.cache!r}; several steps at once need the clips in the device's memory: set "
            "--config.data.cache=device or --config.steps_per_dispatch=1"
        )


def check_statistics(config: ConfigDict, variables: dict[str, Any]) -> None:
    """Raises UserError if batches are too small for the statistics of the model's batch norms."""
    microbatches = config.optimizer.accumulate
    clips = config.batch_size // microbatches
    if STATISTICS in variables and clips < 2:
        raise UserError(
            f"config.batch_size {config.batch_size} in {microbatches} microbatches "
            f"(config.optimizer.accumulate) is {clips} clip at a time; {config.model.name} "
            f"normalises over at least 2"
        )


def check_modalities(config: ConfigDict, model: Any) -> None:
    """Raises UserError unless the batches hold what the model reads."""
    given = set(modalities_of(config.data.modalities))
    wanted = set(model.modalities)
    if wanted != given:
        raise UserError(
            f"config.data.modalities is {', '.join(sorted(given)) or 'empty'}; "
            f"{config.model.name} needs {', '.join(sorted(wanted))}"
        )


def check_same_run(
    workdir: Path, config: ConfigDict, metadata: dict[str, Any], per_epoch: int, extend: bool
) -> list[dict[str, Any]]:
    """Checks the run folder.

    Args:
      workdir: the run folder.
      config, metadata: of the run that is asked for.
      per_epoch: steps of an epoch.
      extend: whether a finished run may go on with another length and schedule.

    Returns:
      How the run was extended, as `config.json` holds it: "step", and the changed fields with what
      they were.

    Raises:
      UserError: it holds a run of another config or dataset, or one that cannot be extended.
    """
    saved = last_saved_step(workdir)
    # Without a checkpoint there is nothing to go on with, and nothing to lose.
    if saved is None:
        if extend:
            raise UserError(f"{workdir} holds no run to extend; leave --extend out")
        return []
    old, old_metadata = read_config(workdir)
    extended = old_metadata.pop(EXTENSIONS)
    before, now = {**to_json(old), **old_metadata}, {**to_json(config), **metadata}
    changed = changed_fields(before, now)
    if changed and not extend:
        raise UserError(f"{workdir} holds another run ({changed}); choose another --workdir")
    if not changed:
        return extended
    if other := changed_fields(before, now, _MAY_EXTEND):
        raise UserError(
            f"{workdir} holds another run ({other}); --extend changes epochs, schedule and "
            "optimizer.lr only: choose another --workdir"
        )
    total, longer = (Plan.from_config(each, per_epoch).total for each in (old, config))
    if saved < total:
        raise UserError(f"{workdir} is at step {saved} of {total}; finish it before --extend")
    if longer <= saved:
        raise UserError(
            f"config.epochs {config.epochs:g} ends at step {longer}, the run is at {saved}; "
            "--extend needs more epochs"
        )
    were = {name: was for name, was, _ in differences(_told(before), _told(now))}
    fields = {name: was for name, was in were.items() if name not in _MAY_DIFFER}
    return [*extended, {"step": saved, "before": fields}]


def changed_fields(before: dict[str, Any], now: dict[str, Any], free: tuple[str, ...] = ()) -> str:
    """Returns, in words, how a run's fields differ where that makes it another run; "" if not.

    Args:
      before, now: configs (and metadata) as nested dicts of JSON types.
      free: the beginnings of further names that may differ.
    """
    changed = [
        f"{name} was {old}, now {new}"
        for name, old, new in differences(_told(before), _told(now))
        if name not in _MAY_DIFFER and not (free and name.startswith(free))
    ]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return "; ".join(changed[:3]) + more


def _told(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that say something: a subtree that comes from no run is not one."""
    said = {
        name: value
        for name, value in flat_fields(fields).items()
        if value or name.partition(".")[0] != "init"
    }
    # Runs of before 2026-12 say "frames".
    if "data.modalities" in said:
        said["data.modalities"] = list(modalities_of(said["data.modalities"]))
    return said
