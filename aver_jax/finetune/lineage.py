"""Checks on parent runs: the clips and the inputs that they were trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aver_jax.config import differences, flat_fields, to_json
from aver_jax.errors import UserError
from aver_jax.finetune.init_from_run import WHOLE_MODEL, leaves
from aver_jax.input import Dataset, Split
from aver_jax.modality import Modality, modalities_of
from aver_jax.models.param_paths import frozen_mask
from aver_jax.runs.run_folder import read_config, split_of_run

# Modality -> the fields that its inputs depend on.
_FIELDS = {
    Modality.VIDEO: ("frontend.normalization", "data.num_frames", "data.image_size"),
    Modality.AUDIO: ("frontend.spectrogram.", "frontend.level"),
}
_PREPARATION = {Modality.VIDEO: ("detector", "margin", "size"), Modality.AUDIO: ()}


def frozen_leaves(config: ConfigDict, model: Any, variables: dict[str, Any]) -> frozenset[str]:
    """Returns the leaves that training leaves as they are, such as "params/blocks/mlp/kernel".

    Args:
      config: reads `freeze`.
      model: the flax module; late fusion holds everything but its fusion, statistics included.
      variables: its collections, or their shapes.

    Raises:
      UserError: late fusion whose branches are not frozen: weight decay would change them.
    """
    masked = leaves(frozen_mask(variables["params"], tuple(config.freeze)))
    frozen = {f"params/{path}" for path, fixed in masked.items() if fixed}
    if model.frozen_subtrees:
        split = {p for p in leaves(variables) if p.split("/")[1] in model.frozen_subtrees}
        loose = {p for p in split if p.startswith("params/")} - frozen
        if loose:
            names = tuple(sorted({path.split("/")[1] for path in split}))
            runs = " ".join(f"--config.init.{name}=RUN" for name in names)
            raise UserError(
                f"late fusion takes {', '.join(names)} from earlier runs and leaves them as they "
                f'are; set --config.freeze="{names}" and give the runs, {runs}'
            )
        frozen |= split
    return frozenset(frozen)


def check_parent_runs(
    config: ConfigDict,
    dataset: Dataset,
    split: Split,
    params: dict[str, Any],
    frozen: frozenset[str],
) -> list[str]:
    """Checks the runs that `config.init` names, and those that these started from in turn.

    Args:
      config: the experiment.
      dataset, split: what it trains on.
      params: the model's parameters, or their shapes.
      frozen: of `frozen_leaves`.

    Returns:
      Notes for the user, one line each.

    Raises:
      UserError: a run has seen clips that the new one tests or validates on, or frozen parameters
        were trained on other inputs than these.
    """
    notes: dict[str, None] = {}
    named = {subtree: Path(folder) for subtree, folder in config.init.items() if folder}
    for folder in dict.fromkeys(named.values()):
        subtree = next(name for name, other in named.items() if other == folder)
        notes |= dict.fromkeys(_check_unseen(f"config.init.{subtree}", folder, dataset, split))
    for subtree, folder in named.items():
        notes |= dict.fromkeys(_check_inputs(subtree, folder, config, dataset, params, frozen))
    return list(notes)


def _ancestors(folder: Path) -> Iterator[tuple[Path, tuple[ConfigDict, dict[str, Any]] | None]]:
    """Yields a run and all it stems from; None for the config of a folder that is gone."""
    waiting, seen = [folder], set()
    while waiting:
        run = waiting.pop(0)
        if run in seen:
            continue
        seen.add(run)
        if run != folder and not (run / "config.json").is_file():
            yield run, None
            continue
        config, metadata = read_config(run)
        yield run, (config, metadata)
        waiting += [Path(name) for name in config.init.values() if name]


def _check_unseen(field: str, folder: Path, dataset: Dataset, split: Split) -> list[str]:
    """Raises UserError if a run, or one it stems from, knows clips that are to be new."""
    notes = []
    for run, content in _ancestors(folder):
        if content is None:
            notes.append(f"note: {folder} started from {run}, which is gone: its clips are unknown")
            continue
        config, metadata = content
        trained_on = metadata["dataset"]
        if not trained_on:
            continue  # converted weights
        own = split_of_run(config, trained_on, dataset)
        if own is None:
            notes.append(
                f"note: {run} was trained on another dataset ({trained_on.get('name')}); whether "
                "it has clips of this one's test is not known"
            )
            continue
        # Two runs of one fold have their checkpoints chosen by the same clips: that is no leak.
        leaked = len(np.intersect1d(own.seen, split.test))
        leaked += len(np.intersect1d(own.train, split.validation))
        if leaked:
            way = "" if run == folder else f", which started from {run}"
            raise UserError(
                f"{field}={folder}{way}: {own.name} fold {own.fold}, target {own.target} has seen "
                f"{leaked} of the clips that {split.name} fold {split.fold}, target "
                f"{split.target} is validated or tested on; take a run of the same protocol, fold "
                "and target"
            )
    return notes


def _check_inputs(
    subtree: str,
    folder: Path,
    config: ConfigDict,
    dataset: Dataset,
    params: dict[str, Any],
    frozen: frozenset[str],
) -> list[str]:
    """Raises UserError if frozen parameters would see other inputs than in their own training."""
    old, metadata = read_config(folder)
    if not metadata["dataset"]:
        return []  # converted weights: their config does not tell how they were trained
    notes = []
    for part in sorted(params) if subtree == WHOLE_MODEL else [subtree]:
        changed: list[str] = []
        for modality in _modalities(part, config.data.modalities):
            if modality in modalities_of(metadata["modalities"]):
                changed += _changes(modality, old, config)
                changed += [
                    f"preparation.{name} was {before}, now {now}"
                    for name in _PREPARATION[modality]
                    if (before := metadata["preparation"].get(name))
                    != (now := dataset.preparation.get(name))
                ]
        if not changed:
            continue
        inside = [f"params/{path}" for path in leaves(params) if f"{path}/".startswith(f"{part}/")]
        if inside and frozen.issuperset(inside):
            raise UserError(
                f"config.init.{subtree}={folder}: {part} is frozen, but its inputs are not those "
                f"it was trained on ({'; '.join(changed)}); give it the same, or do not freeze it"
            )
        notes.append(f"note: {folder}, from which {subtree} comes: {'; '.join(changed)}")
    return notes


def _modalities(part: str, all_of_them: tuple[str, ...]) -> tuple[Modality, ...]:
    """Returns whose inputs matter to a subtree: those of its branch, if it belongs to one."""
    branch = part.split("/")[0].split("_")[0]
    if branch in tuple(Modality):
        return (Modality(branch),)
    return modalities_of(all_of_them)


def _changes(modality: Modality, old: ConfigDict, new: ConfigDict) -> list[str]:
    # Fields that only the old run has do not matter: the new one does without them.
    now = flat_fields(to_json(new))
    before = {name: value for name, value in flat_fields(to_json(old)).items() if name in now}
    return [
        f"{name} was {old}, now {new}"
        for name, old, new in differences(before, now)
        if name.startswith(_FIELDS[modality])
    ]
