"""The study of sound levels: what one level of the sound is worth, on clips at other levels.

The audio branch and N2 are trained on the sound as it is (`frontend.level=off`) and on sound
brought to one level (`rms`), with the same folds and seeds. Each is tested on the clips as they
are, at three tenths of their level, as a downmix leaves them, and at levels drawn for each clip.
"""

import argparse

import numpy as np

from aver_jax.errors import UserError
from aver_jax.experiments.grid.processes import check_workers, run_in_processes
from aver_jax.experiments.grid.sound_levels import predictions_at_levels
from aver_jax.experiments.grid.trainings import (
    Grid,
    base_of,
    check_cells,
    check_words,
    fold_numbers,
    plan_cells,
)
from aver_jax.experiments.pages.level_study import AS_IS, NETWORKS, SETTINGS, build_page
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.stats.predictions import Failure, read_cell_results
from aver_jax.input import open_dataset

_FIELD = "--config.frontend.level="


def run_study(
    args: argparse.Namespace, overrides: tuple[str, ...], command: str
) -> tuple[Page, list[Failure]]:
    """Trains and tests what is not there yet; returns the page, and the cells that failed.

    Args:
      args: the flags of `aver experiments level_study`.
      overrides: words such as "--config.epochs=10.0".
      command: the whole command, to be printed.

    Raises:
      UserError: flags, config or dataset that cannot be used; no training that ended well.
      SystemExit: a signal asked to stop.
    """
    check_words(args.config, overrides)
    check_workers(args.workers)
    for word in overrides:
        if word.startswith(_FIELD):
            raise UserError(f"{word}: the study sets frontend.level itself; leave it out")
    variants = {setting: (f"{_FIELD}{setting}",) for setting in SETTINGS}
    grid = Grid(args.config, args.workdir, overrides, variants)
    config = base_of(grid)
    folds = fold_numbers(args.folds, config.data.protocol)
    if not config.data.path:
        raise UserError("no dataset given; set --config.data.path to a folder aver prepare made")
    cells = plan_cells(NETWORKS, ["lstm"], folds, args.seeds, variants)
    check_cells(grid, cells)
    dataset = open_dataset(config.data.path)
    run_in_processes(grid, cells, args.workers)
    results, failures = read_cell_results(grid, cells)
    predictions: dict[str, list[np.ndarray]] = {AS_IS: [o.predictions for o in results]}
    for o in results:
        for name, found in predictions_at_levels(grid.folder(o.cell), o.rows).items():
            predictions.setdefault(name, []).append(found)
    return build_page(results, predictions, failures, dataset, command), failures
