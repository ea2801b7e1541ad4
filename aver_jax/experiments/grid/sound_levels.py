"""The test clips of a cell at other sound levels: what its network predicts for them."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from aver_jax.errors import UserError
from aver_jax.evaluation.evaluator import Evaluator, evaluation_loader
from aver_jax.evaluation.forward import compiled_forward
from aver_jax.experiments.grid.run_result import result_path
from aver_jax.input import Batch, open_dataset, split
from aver_jax.runs.run_folder import load_run
from aver_jax.runtime.atomic_files import whole
from aver_jax.runtime.data_parallel import make_mesh, replicated

# The level of a clip that is drawn is U(-_RANGE, _RANGE) dB of its own.
_RANGE = 10.0


def _at_three_tenths(row: int) -> float:
    return 0.3


def _drawn(row: int) -> float:
    # From the row alone: the same for every network, seed and batch.
    return 10 ** (np.random.default_rng(row).uniform(-_RANGE, _RANGE) / 20)


#: What is done to a clip, in words -> its row -> what its samples are multiplied by.
LEVELS: dict[str, Callable[[int], float]] = {"at 0.3": _at_three_tenths, "±10 dB": _drawn}


def at_level(batch: Batch, factor_of: Callable[[int], float]) -> Batch:
    """Returns the batch at other sound levels, as a file of 16-bit samples would hold it.

    Args:
      batch: with `audio` int16 [B,S], which is multiplied, rounded and clipped, and `row`.
      factor_of: one of `LEVELS`.
    """
    factors = np.array([factor_of(int(row)) for row in batch["row"]])[:, None]
    ends = np.iinfo(np.int16)
    audio = np.clip(np.round(batch["audio"] * factors), ends.min, ends.max)
    return batch | {"audio": audio.astype(np.int16)}


def predictions_at_levels(folder: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the predictions for the test clips of a finished cell: level -> int [n].

    They are stored in `folder/levels.npz`, and read from there as long as it is newer than the
    cell's result.

    Args:
      folder: of the cell; a run folder whose model hears the sound.
      rows: int [n] of the test clips, in the order of the cell's own predictions.

    Raises:
      UserError: the run or its dataset cannot be opened, or holds other clips.
    """
    path = folder / "levels.npz"
    if path.exists() and path.stat().st_mtime >= result_path(folder).stat().st_mtime:
        try:
            with path.open("rb") as raw, np.load(raw) as file:
                return {name: file[name] for name in LEVELS}
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} cannot be read ({error}); remove it and run the study again"
            ) from error
    run = load_run(folder)
    data = run.config.data
    dataset = open_dataset(data.path)
    clips = split(dataset, data.protocol, data.fold, data.target)
    mesh = make_mesh()
    evaluator = Evaluator(
        compiled_forward(run.model, run.config, mesh), evaluation_loader(run.config, mesh),
        dataset, clips.test, clips.labels, "test", run.config.evaluation.views,
    )  # fmt: skip
    variables = jax.device_put(run.variables, replicated(mesh))
    found = {}
    for name, factor_of in LEVELS.items():

        def changed(batches, factor_of=factor_of):
            return (at_level(batch, factor_of) for batch in batches)

        logits = evaluator.collect(variables, change=changed)
        if not np.array_equal(logits.rows, rows):
            raise UserError(f"{folder} was tested on other clips; choose another --workdir")
        found[name] = logits.logits.argmax(-1)
    with whole(path) as part:
        np.savez_compressed(part, **found)
    return found
