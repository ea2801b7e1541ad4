"""The files through which implementations do the same case. Imports no jax: PyTorch reads them.

case.json         the case, and the settings of front end, loss and optimizer
variables.npz     float32, by path: "params/blocks/attn/qkv/kernel"
batch.npz         the host batch
factors.npz       random factors of the augmentation whose output is compared
outputs_NAME.npz  outputs of an implementation
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.runtime.atomic_files import whole, write_whole


@dataclasses.dataclass(frozen=True)
class CaseFiles:
    """A case with its weights and its batch.

    Attributes:
      folder: where the files are.
      case: the fields of `cases.Case`.
      settings: frontend, optimizer, label_smoothing, num_classes and so on (`tasks.case_files`).
      variables: float32 arrays by path; {} without a model.
      batch: arrays of a host batch, uint8 frames and int16 audio; {} for the input task.
      factors: of the compared augmentation; {} for other tasks.
    """

    folder: Path
    case: dict[str, Any]
    settings: dict[str, Any]
    variables: dict[str, np.ndarray]
    batch: dict[str, np.ndarray]
    factors: dict[str, np.ndarray]

    @property
    def model(self) -> dict[str, Any]:
        """Fields of the aver_jax model."""
        return self.case["model"]

    @property
    def half(self) -> bool:
        """Whether the model computes in bfloat16."""
        return self.model.get("dtype", "float32") == "bfloat16"

    def write(self) -> None:
        """Writes the files, case.json last."""
        for name in ("variables", "batch", "factors"):
            _write_arrays(self.folder / f"{name}.npz", getattr(self, name))
        content = {"case": self.case, **self.settings}
        write_whole(self.folder / "case.json", json.dumps(content, indent=2))

    @classmethod
    def read(cls, folder: str | Path) -> "CaseFiles":
        """Returns the content of a folder that `write` filled."""
        folder = Path(folder)
        settings = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        arrays = (_arrays(folder / f"{name}.npz") for name in ("variables", "batch", "factors"))
        return cls(folder, settings.pop("case"), settings, *arrays)


def write_outputs(folder: Path, implementation: str, outputs: dict[str, np.ndarray]) -> None:
    """Writes the outputs of an implementation, for the benchmark to compare."""
    _write_arrays(folder / f"outputs_{implementation}.npz", outputs)


def read_outputs(folder: Path, implementation: str) -> dict[str, np.ndarray]:
    """Returns the outputs of an implementation; {} if it wrote none."""
    path = folder / f"outputs_{implementation}.npz"
    return _arrays(path) if path.exists() else {}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
