"""What a cell of a grid leaves in its folder: `test.npz`, then `result.json`, both whole."""

import dataclasses
import datetime
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aver_jax import __version__
from aver_jax.errors import UserError
from aver_jax.evaluation.job import Evaluation
from aver_jax.runtime.atomic_files import whole, write_whole

_PACKAGES = ("jax", "flax", "numpy")
_PARTS = {"cell", "config", "dataset", "results", "seconds"}
_RESULTS = {
    "dataset", "protocol", "target", "step", "dropped", "classes", "clips", "actors", "confusion",
}  # fmt: skip
_SCORES = ("war", "uar", "macro_f1", "loss")


def result_path(folder: Path) -> Path:
    """Returns the file that says how a cell ended."""
    return folder / "result.json"


def made_here() -> dict[str, str]:
    """Returns what made a training, and when: "versions", "device", "date"."""
    versions = [f"aver_jax {__version__}", f"Python {platform.python_version()}"]
    versions += [f"{package} {metadata.version(package)}" for package in _PACKAGES]
    return {
        "versions": ", ".join(versions),
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
    }


def write_result(
    folder: Path, cell: Any, config: dict[str, Any], evaluation: Evaluation, seconds: float
) -> None:
    """Writes what a finished cell found.

    Args:
      folder: of the cell.
      cell: a `trainings.Cell`.
      config: what identifies the experiment, JSON types.
      evaluation: on the test split.
      seconds: that it took.
    """
    clips, index = evaluation.clips, evaluation.dataset.index
    arrays = {
        "row": clips.rows,
        "label": evaluation.labels,
        "actor": index["actor"][clips.rows],
        "clip_id": index["clip_id"][clips.rows],
        "logits": clips.logits,
        **{f"logits_{name}": logits for name, logits in clips.branches.items()},
    }
    if clips.features is not None:
        arrays["features"] = clips.features
    with whole(folder / "test.npz") as path:
        np.savez_compressed(path, **arrays)
    found = {"results": evaluation.results, "seconds": round(seconds, 1)}
    _write(folder, cell, config, evaluation.dataset.fingerprint, found)


def write_failure(
    folder: Path, cell: Any, config: dict[str, Any], dataset: str, reason: str
) -> None:
    """Writes that a cell could not be trained, and why; arguments as of `write_result`."""
    _write(folder, cell, config, dataset, {"failed": reason})


def _write(
    folder: Path, cell: Any, config: dict[str, Any], dataset: str, found: dict[str, Any]
) -> None:
    told = {"cell": dataclasses.asdict(cell), "config": config, "dataset": dataset}
    result = {**told, "made": made_here(), **found}
    write_whole(result_path(folder), json.dumps(result, indent=1) + "\n")


def failure_of(result: dict[str, Any]) -> str | None:
    """Returns why the cell of a result failed; None if it did not."""
    return result.get("failed")


def read_result(folder: Path) -> dict[str, Any]:
    """Returns what was written; UserError if it is damaged."""
    path = result_path(folder)
    try:
        result = json.loads(path.read_text())
        if "failed" not in result:
            _check_whole(result)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it and run the study again"
        ) from error
    return result


def _check_whole(result: dict[str, Any]) -> None:
    if missing := _PARTS - result.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    if not isinstance(result["config"], dict):
        raise ValueError("its config is none")
    if missing := _RESULTS - result["results"].keys():
        raise ValueError(f"its results lack {', '.join(sorted(missing))}")
    for score in _SCORES:
        if "value" not in result["results"].get("metrics", {}).get(score, {}):
            raise ValueError(f"its results lack {score}")
