"""What the aver_jax side of a benchmark case leaves in a folder for the torch sides to read."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A case with its weights and its batch.

    Attributes:
      folder: where it was read from, and where results go.
      case: task, sizes, modalities; "model" has the fields of the aver_jax model.
      settings: the rest of case.json: frontend, optimizer, label_smoothing, num_classes and so on.
      variables: flat names ("params/blocks/attn/qkv/kernel") to float32 arrays.
      batch: arrays of a host batch, uint8 frames and int16 audio; empty for the input task.
      factors: of the checked augmentation; empty elsewhere.
    """

    folder: Path
    case: dict[str, Any]
    settings: dict[str, Any]
    variables: dict[str, np.ndarray]
    batch: dict[str, np.ndarray]
    factors: dict[str, np.ndarray]

    @property
    def model(self) -> dict[str, Any]:
        """Fields of the model."""
        return self.case["model"]

    @property
    def half(self) -> bool:
        """Whether the model computes in bfloat16."""
        return self.model.get("dtype", "float32") == "bfloat16"

    def write_result(self, side: str, result: Mapping[str, np.ndarray]) -> None:
        """Writes what the parent compares, `result_SIDE.npz`."""
        np.savez(self.folder / f"result_{side}.npz", **result)


def read(folder: str | Path) -> Exchange:
    """Returns the content of an exchange folder; files that a task does not have may be missing."""
    folder = Path(folder)
    settings = json.loads((folder / "case.json").read_text(encoding="utf-8"))

    def arrays(name: str) -> dict[str, np.ndarray]:
        path = folder / f"{name}.npz"
        if not path.is_file():
            return {}
        with np.load(path) as file:
            return {key: file[key] for key in file.files}

    return Exchange(
        folder=folder,
        case=settings.pop("case"),
        settings=settings,
        variables=arrays("variables"),
        batch=arrays("batch"),
        factors=arrays("factors"),
    )
