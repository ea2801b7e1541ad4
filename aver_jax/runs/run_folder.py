"""Run folders: what a trained model leaves behind, and opening it again."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from aver_jax.config import base_config, check_fields, to_json
from aver_jax.errors import UserError
from aver_jax.input import Dataset, Split, split
from aver_jax.modality import Modality, modalities_of
from aver_jax.models import build_model, init_variables
from aver_jax.runs.checkpoints import Checkpoints, abstract_like
from aver_jax.runtime.atomic_files import write_whole

# What config.json holds beside the experiment's fields.
METADATA = ("classes", "protocol", "modalities", "preparation", "dataset")
# Of runs that `aver train --extend` went on with: what changed, and after which step.
EXTENSIONS = "extended"


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A trained model and what is needed to use it; unpacks as `model, variables, config`.

    Attributes:
      folder: the run folder.
      model: the flax module.
      variables: its collections; their moving average where the run kept one.
      config: the experiment.
      classes: class names in the order of the logits.
      protocol: the name of the data split the run was trained under.
      modalities: of the model's inputs.
      preparation: how its dataset was prepared (detector, margin, size, ...).
      dataset: name, rows and fingerprint of what it was trained on; empty for converted weights.
      step: the training step of the variables.
    """

    folder: Path
    model: Any
    variables: dict[str, Any]
    config: ConfigDict
    classes: tuple[str, ...]
    protocol: str
    modalities: tuple[Modality, ...]
    preparation: dict[str, Any]
    dataset: dict[str, Any]
    step: int

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.variables, self.config))


def write_config(folder: Path, config: ConfigDict, metadata: dict[str, Any]) -> None:
    """Writes `config.json`: the experiment's fields and, beside them, the `METADATA`."""
    missing = [name for name in METADATA if name not in metadata]
    if missing:
        raise ValueError(f"metadata of a run lack {', '.join(missing)}")
    write_whole(
        folder / "config.json", json.dumps({**to_json(config), **metadata}, indent=2) + "\n"
    )


def read_config(folder: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """Returns the experiment of a run folder and its metadata; UserError if it is none."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(
            f"{folder} is not a run folder: no config.json; give a --workdir of aver train"
        )
    try:
        content = json.loads(path.read_text())
        metadata = {name: content.pop(name) for name in METADATA}
        metadata[EXTENSIONS] = content.pop(EXTENSIONS, [])
        config = ConfigDict(content)
        check_fields(config)
        # Runs written before a field existed have its default.
        complete = base_config()
        with complete.unlocked():
            complete.update(config)
            if "init" in config:  # no subtree has a default: late fusion has no "model"
                complete.init = config.init
            # Runs of before 2026-12 say "frames".
            complete.data.modalities = tuple(map(str, modalities_of(complete.data.modalities)))
        lists = all(isinstance(metadata[name], list) for name in ("classes", "modalities"))
        if not (lists and isinstance(metadata["preparation"], dict)):
            raise TypeError("classes, modalities or preparation are not what a run writes")
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it or train again") from error
    return complete, metadata


def split_of_run(config: ConfigDict, trained_on: dict[str, Any], dataset: Dataset) -> Split | None:
    """Returns how a run split a dataset; None if it was trained on another one, or on none.

    Args:
      config: the run's experiment.
      trained_on: the run's `metadata["dataset"]`.
      dataset: an open dataset.
    """
    known = trained_on.get("index_sha256")
    if known is None or known != dataset.fingerprint:
        return None
    data = config.data
    return split(dataset, data.protocol, data.fold, data.target)


def model_of(config: ConfigDict, num_classes: int) -> Any:
    """Returns the module that `config.model` describes; UserError if it describes none."""
    try:
        return build_model(config.model, num_classes)
    except (ValueError, TypeError) as error:
        raise UserError(f"config.model: {error}") from error


def load_run(folder: str | Path, checkpoint: str = "best") -> LoadedRun:
    """Opens a run folder, one that `aver train` or `tools/convert_checkpoint.py` wrote.

    Args:
      folder: the run folder.
      checkpoint: "best" (by the run's validation metric), "last", or a step.

    Returns:
      The model with its variables on the first device, and the run's metadata.

    Raises:
      UserError: not a run folder, no such checkpoint, or a checkpoint of another model.
    """
    folder = Path(folder)
    config, metadata = read_config(folder)
    model = model_of(config, len(metadata["classes"]))
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    select = config.evaluation.select
    with Checkpoints(folder / "checkpoints", select, read_only=True) as checkpoints:
        step = checkpoints.step(checkpoint)
        abstract = {"variables": abstract_like(shapes, sharding)}
        if checkpoints.has(step, "ema"):
            abstract["ema"] = abstract["variables"]["params"]
        if checkpoints.has(step, "ema_statistics"):
            abstract["ema_statistics"] = {
                name: tree for name, tree in abstract["variables"].items() if name != "params"
            }
        restored = checkpoints.restore(step, abstract)
    variables = restored["variables"]
    if "ema" in restored:
        statistics = restored.get("ema_statistics", {})
        variables = {**variables, "params": restored["ema"], **statistics}
    return LoadedRun(
        folder=folder,
        model=model,
        variables=variables,
        config=config,
        classes=tuple(metadata["classes"]),
        protocol=metadata["protocol"],
        modalities=modalities_of(metadata["modalities"]),
        preparation=metadata["preparation"],
        dataset=metadata["dataset"],
        step=step,
    )


def write_run(
    folder: str | Path, config: ConfigDict, metadata: dict[str, Any], variables: dict[str, Any]
) -> None:
    """Writes a run folder that holds one checkpoint, at step 0 (for converted weights).

    Args:
      folder: must not exist yet.
      config: the experiment; every field of `base_config` with its default where unused.
      metadata: `METADATA`.
      variables: the model's collections, e.g. {"params": ...}.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder or remove it")
    write_config(folder, config, metadata)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, {"variables": variables}, metrics=None)
