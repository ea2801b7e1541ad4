"""The comparison of fusion networks: every network on every fold, with every seed."""

import argparse
from collections.abc import Sequence

from aver_jax.errors import UserError
from aver_jax.experiments.grid.processes import check_workers, run_in_processes
from aver_jax.experiments.grid.trainings import (
    NETWORKS,
    Cell,
    Grid,
    base_of,
    check_words,
    fold_numbers,
    plan_cells,
)
from aver_jax.experiments.pages import tables
from aver_jax.experiments.pages.mrpn_table import build_page
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.stats.predictions import Failure, read_cell_results
from aver_jax.input import open_dataset

_AUGMENTED = ("audio", "video", "n0")
_WHOLE_CLIPS = "--config.data.min_slice=1.0"


def run_study(
    args: argparse.Namespace, overrides: tuple[str, ...], command: str
) -> tuple[Page, list[Failure]]:
    """Trains what is not trained yet; returns the page, and the cells that failed.

    Args:
      args: the flags of `aver experiments mrpn_table`.
      overrides: words such as "--config.epochs=10.0".
      command: the whole command, to be printed.

    Raises:
      UserError: flags, config or dataset that cannot be used; no training that ended well.
      SystemExit: a signal asked to stop.
    """
    check_words(args.config, overrides)
    check_workers(args.workers)
    both = args.time_augmentation == "both"
    variants = {"": ()} | ({tables.WHOLE_CLIPS: (_WHOLE_CLIPS,)} if both else {})
    # The folds are the protocol's, which the experiment names.
    config = base_of(Grid(args.config, args.workdir, overrides))
    folds = fold_numbers(args.folds, config.data.protocol)
    if not config.data.path:
        raise UserError("no dataset given; set --config.data.path to a folder aver prepare made")
    if both and config.data.min_slice == 1:
        raise UserError(
            "config.data.min_slice is 1, training on whole clips; with --time-augmentation both "
            "it must be less"
        )
    grid = Grid(args.config, args.workdir, overrides, variants, featured=(folds[0], args.seeds[0]))
    cells = plan_cells(args.networks, args.aggregators, folds, args.seeds)
    some = [network for network in _AUGMENTED if network in args.networks]
    if both and some:
        more = plan_cells(some, args.aggregators[:1], folds, args.seeds, [tables.WHOLE_CLIPS])
        cells += more
    dataset = open_dataset(config.data.path)
    run_in_processes(grid, in_order(cells), args.workers)
    results, failures = read_cell_results(grid, cells)
    return build_page(results, failures, dataset, command, args.note), failures


def in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Returns all cells of a network together, whatever their variant; else as given."""
    return sorted(cells, key=lambda cell: list(NETWORKS).index(cell.network))
