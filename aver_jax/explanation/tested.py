"""The test clips of a trained run, checked as `aver evaluate` checks them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from aver_jax.errors import UserError
from aver_jax.evaluation.job import check_dataset, check_unseen
from aver_jax.explanation.clip_maps import CONTROLS
from aver_jax.explanation.masking import BASELINES
from aver_jax.input import Dataset, open_dataset, split
from aver_jax.modality import Modality
from aver_jax.relevance import methods_of
from aver_jax.runs.run_folder import LoadedRun, load_run


class Tested(NamedTuple):
    """A run and clips that it has not seen.

    Attributes:
      run: the trained model.
      dataset: an open dataset.
      rows: int32 [n] of it, all of the test split or evenly chosen among them.
      labels: int32 [n].
      of: number of clips of the test split.
      protocol, fold: the split.
    """

    run: LoadedRun
    dataset: Dataset
    rows: np.ndarray
    labels: np.ndarray
    of: int
    protocol: str
    fold: int


def open_tested(
    folder: Path,
    checkpoint: str = "best",
    data: Path | None = None,
    clips: int | None = None,
) -> Tested:
    """Opens a run and the test split of its protocol and fold.

    Args:
      folder: the run folder.
      checkpoint: "best", "last" or a step.
      data: prepared dataset, default the one the run was trained on.
      clips: take at most so many, evenly spaced through the split.

    Raises:
      UserError: no such run or dataset, classes that differ, a model without video, or one whose
        training saw these clips.
    """
    run = load_run(folder, checkpoint)
    config = run.config
    if Modality.VIDEO not in run.modalities:
        raise UserError(f"{folder} reads no video, and the experiment occludes video; take another")
    if not ((data or config.data.path) and config.data.protocol):
        raise UserError(f"{folder} was not trained on a dataset with a protocol; train one")
    dataset = open_dataset(str(data or config.data.path))
    check_dataset(run, dataset)
    parts = split(dataset, config.data.protocol, config.data.fold, config.data.target)
    check_unseen(run, dataset, parts, "test")
    rows = parts.test
    if not len(rows):
        raise UserError(f"{parts.name} fold {parts.fold} of {dataset.path} has no test clips")
    if clips is not None and clips < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, clips).round().astype(int)]
    return Tested(
        run, dataset, rows, parts.labels[rows], len(parts.test), parts.name, int(parts.fold)
    )


def check_baselines(asked: tuple[str, ...]) -> None:
    """Raises UserError if --baselines names what is none."""
    unknown = [name for name in asked if name not in BASELINES]
    if unknown:
        raise UserError(f"--baselines has {', '.join(unknown)}; choose from {', '.join(BASELINES)}")


def checked_methods(run: LoadedRun, asked: tuple[str, ...], prefix: str = "") -> tuple[str, ...]:
    """Returns the asked methods, or for ("all",) all that explain the run; controls come last.

    Args:
      run: a trained model.
      asked: names, as of --methods.
      prefix: in front of a method it is a further control ("time_shuffled:"); "": there is none.

    Raises:
      UserError: a method that the model lacks.
    """
    known = methods_of(run.model)
    if asked in (("all",), "all"):
        asked = known
    wrong = [
        name
        for name in asked
        if name not in CONTROLS and (name.removeprefix(prefix) if prefix else name) not in known
    ]
    if wrong:
        raise UserError(
            f"--methods has {', '.join(wrong)}; this {run.config.model.name} is explained by "
            f"{', '.join(known)} (or all)"
        )
    return tuple(dict.fromkeys((*(name for name in asked if name not in CONTROLS), *CONTROLS)))
