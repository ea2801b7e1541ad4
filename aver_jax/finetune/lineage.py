"""Whether earlier runs may be the start of a new one: the clips and inputs they were trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aver_jax.config import flat_fields, to_json
from aver_jax.errors import UserError
from aver_jax.finetune.init_from_run import WHOLE_MODEL, leaves
from aver_jax.input import Dataset, Split
from aver_jax.input import split as split_dataset
from aver_jax.models.param_paths import frozen_mask
from aver_jax.runs.run_folder import read_config

# What late fusion trains: all else is as earlier runs left it.
_FUSION = "fusion"

# Modality -> the fields that its inputs depend on.
_FIELDS = {
    "frames": ("frontend.normalization", "data.num_frames", "data.image_size"),
    "audio": ("frontend.spectrogram.",),
}
_PREPARATION = {"frames": ("detector", "margin", "size"), "audio": ()}
_BRANCHES = {"video": "frames", "audio": "audio"}


def held_leaves(config: ConfigDict, model: Any, variables: dict[str, Any]) -> frozenset[str]:
    """Returns the leaves that training leaves as they are, such as "params/blocks/mlp/kernel".

    Args:
      config: reads `freeze`.
      model: the flax module; late fusion holds everything but its fusion, statistics included.
      variables: its collections, or their shapes.

    Raises:
      UserError: late fusion whose branches are not frozen: weight decay would change them.
    """
    frozen = leaves(frozen_mask(variables["params"], tuple(config.freeze)))
    held = {f"params/{path}" for path, fixed in frozen.items() if fixed}
    if getattr(model, "network", None) == "late":
        parts = {path for path in leaves(variables) if path.split("/")[1] != _FUSION}
        loose = {p for p in parts if p.startswith("params/")} - held
        if loose:
            names = tuple(sorted({path.split("/")[1] for path in parts}))
            runs = " ".join(f"--config.init.{name}=RUN" for name in names)
            raise UserError(
                f"late fusion takes {', '.join(names)} from earlier runs and leaves them as they "
                f'are; set --config.freeze="{names}" and give the runs, {runs}'
            )
        held |= parts
    return frozenset(held)


def check_origins(
    config: ConfigDict,
    dataset: Dataset,
    parts: Split,
    params: dict[str, Any],
    held: frozenset[str],
) -> list[str]:
    """Checks the runs that `config.init` names, and those that these started from in turn.

    Args:
      config: the experiment.
      dataset, parts: what it trains on.
      params: the model's parameters, or their shapes.
      held: of `held_leaves`.

    Returns:
      Notes for the user, one line each.

    Raises:
      UserError: a run has seen clips that the new one tests or validates on, or held parameters
        were trained on other inputs than these.
    """
    notes: dict[str, None] = {}
    named = {subtree: Path(folder) for subtree, folder in config.init.items() if folder}
    for folder in dict.fromkeys(named.values()):
        subtree = next(name for name, other in named.items() if other == folder)
        notes |= dict.fromkeys(_check_unseen(f"config.init.{subtree}", folder, dataset, parts))
    for subtree, folder in named.items():
        notes |= dict.fromkeys(_check_inputs(subtree, folder, config, dataset, params, held))
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
        config, facts = read_config(run)
        yield run, (config, facts)
        waiting += [Path(name) for name in config.init.values() if name]


def _check_unseen(field: str, folder: Path, dataset: Dataset, parts: Split) -> list[str]:
    """Raises UserError if a run, or one it stems from, knows clips that are to be new."""
    notes = []
    for run, content in _ancestors(folder):
        if content is None:
            notes.append(f"note: {folder} started from {run}, which is gone: its clips are unknown")
            continue
        config, facts = content
        trained_on = facts["dataset"]
        if not trained_on:
            continue  # converted weights
        if trained_on.get("index_sha256") != dataset.fingerprint:
            notes.append(
                f"note: {run} was trained on another dataset ({trained_on.get('name')}); whether "
                "it has clips of this one's test is not known"
            )
            continue
        data = config.data
        own = split_dataset(dataset, data.protocol, data.fold, data.target)
        # Two runs of one fold have their checkpoints chosen by the same clips: that is no leak.
        known = np.concatenate([own.train, own.validation])
        leaked = len(np.intersect1d(known, parts.test))
        leaked += len(np.intersect1d(own.train, parts.validation))
        if leaked:
            way = "" if run == folder else f", which started from {run}"
            raise UserError(
                f"{field}={folder}{way}: {own.name} fold {own.fold}, target {own.target} has seen "
                f"{leaked} of the clips that {parts.name} fold {parts.fold}, target "
                f"{parts.target} is validated or tested on; take a run of the same protocol, fold "
                "and target"
            )
    return notes


def _check_inputs(
    subtree: str,
    folder: Path,
    config: ConfigDict,
    dataset: Dataset,
    params: dict[str, Any],
    held: frozenset[str],
) -> list[str]:
    """Raises UserError if held parameters would see other inputs than in their own training."""
    old, facts = read_config(folder)
    if not facts["dataset"]:
        return []  # converted weights: their config does not tell how they were trained
    notes = []
    for part in sorted(params) if subtree == WHOLE_MODEL else [subtree]:
        changed: list[str] = []
        for modality in _modalities(part, config.data.modalities):
            if modality in facts["modalities"]:
                changed += _changes(modality, old, config)
                changed += [
                    f"preparation.{name} was {before}, now {now}"
                    for name in _PREPARATION[modality]
                    if (before := facts["preparation"].get(name))
                    != (now := dataset.preparation.get(name))
                ]
        if not changed:
            continue
        inside = [f"params/{path}" for path in leaves(params) if f"{path}/".startswith(f"{part}/")]
        if inside and held.issuperset(inside):
            raise UserError(
                f"config.init.{subtree}={folder}: {part} is frozen, but its inputs are not those "
                f"it was trained on ({'; '.join(changed)}); give it the same, or do not freeze it"
            )
        notes.append(f"note: {folder}, from which {subtree} comes: {'; '.join(changed)}")
    return notes


def _modalities(part: str, all_of_them: tuple[str, ...]) -> tuple[str, ...]:
    """Returns whose inputs matter to a subtree: those of its branch, if it belongs to one."""
    branch = part.split("/")[0].split("_")[0]
    return (_BRANCHES[branch],) if branch in _BRANCHES else tuple(all_of_them)


def _changes(modality: str, old: ConfigDict, new: ConfigDict) -> list[str]:
    before, now = flat_fields(to_json(old)), flat_fields(to_json(new))
    return [
        f"{name} was {before.get(name)}, now {now[name]}"
        for name in now
        if name.startswith(_FIELDS[modality]) and before.get(name) != now[name]
    ]
