"""What the aver_jax side of a benchmark case leaves in a folder for the torch sides to read."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.bench.worker.protocol import read_arrays


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A case with its weights and its batch.

    Attributes:
      folder: where it was read from, and where results go (`answers.write_result`).
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


def read(folder: str | Path) -> Exchange:
    """Returns the content of an exchange folder; files that a task does not have may be missing."""
    folder = Path(folder)
    settings = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return Exchange(
        folder=folder,
        case=settings.pop("case"),
        settings=settings,
        variables=read_arrays(folder / "variables.npz"),
        batch=read_arrays(folder / "batch.npz"),
        factors=read_arrays(folder / "factors.npz"),
    )
