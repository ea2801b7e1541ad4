"""The study of unclear clips: do the networks' ranks change as more clips are fuzzy?

The thesis' hypothesis (chapter 5.1): where the information of a modality is missing or fuzzy,
training both modalities together with the fusion's loss alone (N0) distorts what the branches
learn; losses of the branches (N1) and residual perceptrons (N2) repair it. Here the share of such
clips is known, because the clips are rendered.
"""

import argparse
import sys

from aver_jax.errors import UserError
from aver_jax.experiments.corpora import (
    Rendering,
    audit_corpus,
    contents_of,
    make_corpus,
    plan_corpora,
)
from aver_jax.experiments.grid.processes import check_workers, run_in_processes
from aver_jax.experiments.grid.trainings import (
    Grid,
    base_of,
    check_cells,
    check_words,
    fold_numbers,
    plan_cells,
)
from aver_jax.experiments.pages.fuzzy_study import build_page
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.stats.predictions import Failure, read_cell_results


def run_study(
    args: argparse.Namespace, overrides: tuple[str, ...], command: str
) -> tuple[Page, list[Failure]]:
    """Renders and trains what is not there yet; returns the page, and the cells that failed.

    Args:
      args: the flags of `aver experiments fuzzy_study`.
      overrides: words such as "--config.epochs=10.0".
      command: the whole command, to be printed.

    Raises:
      UserError: flags or config that cannot be used; a corpus that failed, or every training.
      SystemExit: a signal asked to stop.
    """
    check_words(args.config, overrides)
    check_workers(args.workers)
    for word in overrides:
        if word.startswith("--config.data.path="):
            raise UserError(f"{word}: the study renders its own corpora; leave it out")
    corpora = plan_corpora(args.shares, args.conflicts)
    if not corpora:
        raise UserError("--shares and --conflicts are empty; give at least one share")
    rendering = Rendering(
        clips=args.clips,
        actors=args.actors,
        size=args.size,
        fps=args.fps,
        seconds=args.seconds,
        crop=args.crop,
        seed=args.corpus_seed,
    )
    folders = {corpus.name: args.workdir / "corpora" / corpus.name for corpus in corpora}
    variants = {
        name: (f"--config.data.path={folder / 'data'}",) for name, folder in folders.items()
    }
    grid = Grid(args.config, args.workdir, overrides, variants)
    config = base_of(grid)
    folds = fold_numbers(args.folds, config.data.protocol)
    cells = plan_cells(args.networks, [args.aggregator], folds, args.seeds, variants)
    check_cells(grid, cells)
    for corpus in corpora:
        print(f"corpus {corpus.name}: {folders[corpus.name]}", file=sys.stderr, flush=True)
        data = make_corpus(corpus, rendering, folders[corpus.name])
        audit_corpus(data, config.data.protocol, config.data.target)
    run_in_processes(grid, cells, args.workers)
    contents = {
        name: contents_of(folder / "data", config.data.protocol, folds, config.data.target)
        for name, folder in folders.items()
    }
    results, failures = read_cell_results(grid, cells)
    return build_page(results, failures, corpora, contents, rendering, command), failures
