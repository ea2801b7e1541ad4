"""A prepared dataset on disk: its records by row, and its index as columns."""

import csv
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.errors import UserError

_TEXT_COLUMNS = (
    "clip_id", "actor", "sex", "label", "intensity", "sentence",
    "voice_vote", "face_vote", "multimodal_vote",
)  # fmt: skip
_NUMBER_COLUMNS = {"row": np.int32, "age": np.int32, "frames": np.int32, "seconds": np.float64}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset.

    Attributes:
      path: its folder.
      name: "crema_d", "ravdess", "synthetic" or "folder".
      classes: names in label order.
      preparation: how it was made (detector, margin, size, sample_rate, version).
      index: column name -> array [rows] in stored order; text columns are str arrays, "" where
        unknown; row, age (-1 unknown), frames are int32, seconds float64.
      source: `source[row]` is the record as a dict: `frames` a list of JPEG bytes, `pcm` bytes,
        texts as bytes, the rest numpy. Safe to read from several threads.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    preparation: dict[str, Any]
    index: dict[str, np.ndarray]
    source: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.index["clip_id"])

    @property
    def fingerprint(self) -> str:
        """Hash of the index: the same clips in the same order, wherever the folder lies."""
        return hashlib.sha256((self.path / "index.csv").read_bytes()).hexdigest()


def open_dataset(path: str | Path) -> Dataset:
    """Opens what `aver prepare ... --out PATH` made. Imports neither TensorFlow nor pyarrow.

    Raises:
      UserError: the folder is missing, is not a prepared dataset, or lacks a part.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError(
            f"no dataset at {path}; make it with `aver prepare crema_d|ravdess|folder "
            f"--source MEDIA --out {path}`, or give another folder"
        )
    for name in ("dataset_info.json", "features.json", "index.csv", "preparation.json"):
        if not (path / name).is_file():
            raise UserError(
                f"{path} has no {name}, so it is not a whole prepared dataset; give the folder "
                "that `aver prepare ... --out` made, or prepare it again"
            )
    preparation = _preparation(path / "preparation.json")
    index = _index(path / "index.csv")
    dataset = Dataset(
        path=path,
        name=preparation["dataset"],
        classes=tuple(preparation["classes"]),
        preparation=preparation,
        index=index,
        source=_records(path),
    )
    _check_records(dataset)
    return dataset


def _preparation(file: Path) -> dict[str, Any]:
    try:
        preparation = json.loads(file.read_text(encoding="utf-8"))
        missing = {"dataset", "classes", "sample_rate", "size"} - preparation.keys()
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{file} is not a JSON object ({error}); prepare the dataset again"
        ) from None
    if missing:
        raise UserError(f"{file} lacks {', '.join(sorted(missing))}; prepare the dataset again")
    return preparation


def _index(file: Path) -> dict[str, np.ndarray]:
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = {*_TEXT_COLUMNS, *_NUMBER_COLUMNS} - set(reader.fieldnames or ())
        if missing:
            raise UserError(
                f"{file} lacks the columns {', '.join(sorted(missing))}; prepare the dataset again"
            )
        rows = list(reader)
    index = {name: np.array([row[name] for row in rows], str) for name in _TEXT_COLUMNS}
    try:
        for name, dtype in _NUMBER_COLUMNS.items():
            index[name] = np.array([row[name] or -1 for row in rows], np.float64).astype(dtype)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{file}, column {name}: {error}; expected numbers; prepare the dataset again"
        ) from None
    if not np.array_equal(index["row"], np.arange(len(rows))):
        raise UserError(
            f"{file}: the column row is not 0 ... {len(rows) - 1} in order; "
            "the file was edited or sorted: prepare the dataset again"
        )
    return index


def _records(path: Path) -> Sequence[dict[str, Any]]:
    # Here, not above: 0.3 s that `aver train --help` need not wait for.
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(str(path))
        shards = [Path(shard.filename) for shard in info.info.splits["all"].file_instructions]
    except Exception as error:
        raise UserError(
            f"{path} cannot be opened as a dataset ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}); prepare it again"
        ) from error
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent or not shards:
        raise UserError(
            f"{path} lacks {len(absent)} of its {len(shards)} record files "
            f"({', '.join(absent[:3])}); copy it whole, or prepare it again"
        )
    return info.as_data_source(split="all")


def _check_records(dataset: Dataset) -> None:
    """Compares the index with the first and last record, so that a mixed-up folder is noticed."""
    if len(dataset.source) != len(dataset) or len(dataset) == 0:
        raise UserError(
            f"{dataset.path} holds {len(dataset.source)} records and its index.csv {len(dataset)} "
            "rows, expected the same number and at least one; prepare the dataset again"
        )
    for row in {0, len(dataset) - 1}:
        try:
            found = dataset.source[row]["clip_id"].decode()
        except Exception as error:
            raise UserError(
                f"record {row} of {dataset.path} cannot be read ({type(error).__name__}); "
                "the files are damaged: copy the dataset whole, or prepare it again"
            ) from error
        if found != dataset.index["clip_id"][row]:
            raise UserError(
                f"record {row} of {dataset.path} is {found}, its index.csv says "
                f"{dataset.index['clip_id'][row]}; the files are of different datasets: "
                "prepare the dataset again"
            )
