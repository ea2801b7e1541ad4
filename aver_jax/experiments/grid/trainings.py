"""A grid of trainings: its cells, the config of each, and running them one after the other.

A cell leaves a run folder with the files of `run_result` in it: a study that was stopped goes on
with the cell it was in, and keeps the finished ones. A cell that cannot be trained does not stop
the others: its result says why.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aver_jax.config import base_config, load_config, override, to_json
from aver_jax.errors import UserError
from aver_jax.evaluation.job import evaluate_run
from aver_jax.experiments.grid.run_result import (
    failure_of,
    read_result,
    result_path,
    write_failure,
    write_result,
)
from aver_jax.input import PROTOCOLS, open_dataset
from aver_jax.models.resnet.sequence import AGGREGATORS
from aver_jax.training.job import train
from aver_jax.training.preflight import changed_fields
from data_prep.wording import counted

#: Network -> its name for people. Late fusion comes after the runs it is built from.
NETWORKS = {
    "audio": "audio",
    "video": "video",
    "late": "late fusion",
    "n0": "N0",
    "n1": "N1",
    "n2": "N2 (MRPN)",
}
BRANCHES = ("video", "audio")
_OF_THE_GRID = ("network", "aggregator", "fold")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training: `variant` is a key of `Grid.variants`, "" for the experiment as it is."""

    network: str
    aggregator: str
    fold: int
    seed: int
    variant: str = ""

    @property
    def name(self) -> str:
        """The cell's folder below `cells`."""
        parts = [self.network, self.aggregator, self.variant, f"fold{self.fold}"]
        return "_".join(part for part in [*parts, f"seed{self.seed}"] if part)


@dataclasses.dataclass(frozen=True)
class Grid:
    """What the cells of a study share.

    Attributes:
      spec: the experiment, as `aver train --config` takes it, without network, aggregator, fold.
      workdir: folder of the study; cells lie in `workdir/cells`.
      overrides: words such as "--config.epochs=2.0", for every cell.
      variants: name -> further words, for the cells of that variant.
      featured: (fold, seed) of the cells that store the features of their test clips.
    """

    spec: str
    workdir: Path
    overrides: tuple[str, ...] = ()
    variants: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {"": ()})
    featured: tuple[int, int] | None = None

    def folder(self, cell: Cell) -> Path:
        """Returns the run folder of a cell."""
        return self.workdir / "cells" / cell.name


def plan_cells(
    networks: Iterable[str],
    aggregators: Iterable[str],
    folds: Iterable[int],
    seeds: Iterable[int],
    variants: Iterable[str] = ("",),
) -> list[Cell]:
    """Returns every cell, in the order in which they run.

    All trainings of a network follow one another, so that each compiles once; late fusion comes
    after the branches it is built from.

    Raises:
      UserError: no network or aggregator, an unknown network, late fusion without its branches.
    """
    networks, aggregators = (list(dict.fromkeys(names)) for names in (networks, aggregators))
    if not networks:
        raise UserError(f"--networks is empty; give some of {', '.join(NETWORKS)}")
    if not aggregators:
        raise UserError(f"--aggregators is empty; give some of {', '.join(AGGREGATORS)}")
    unknown = [name for name in networks if name not in NETWORKS]
    if unknown:
        raise UserError(f"unknown network {unknown[0]!r}; expected some of {', '.join(NETWORKS)}")
    missing = [name for name in BRANCHES if name not in networks]
    if "late" in networks and missing:
        raise UserError(
            f"late fusion is built from the runs of video and audio; add {', '.join(missing)} to "
            "--networks, or leave late out"
        )
    folds, seeds = (list(dict.fromkeys(numbers)) for numbers in (folds, seeds))
    return [
        Cell(network, aggregator, fold, seed, variant)
        for network in sorted(networks, key=list(NETWORKS).index)
        for aggregator in aggregators
        for variant in variants
        for seed in seeds
        for fold in folds
    ]


def check_words(spec: str, overrides: Iterable[str]) -> None:
    """Raises UserError if the user sets what the grid sets, or words that are no config fields."""
    given = {pair.partition("=")[0] for pair in spec.partition(":")[2].split(",")}
    for name in _OF_THE_GRID:
        if name in given:
            raise UserError(
                f"--config {spec} sets {name}, which the study sets itself; leave it out and see "
                "the study's own flags"
            )
    for word in overrides:
        if not word.startswith("--config."):
            raise UserError(f"unknown argument {word!r}; see aver experiments STUDY --help")
        field = word.removeprefix("--config.").partition("=")[0]
        if field in ("seed", "data.fold", "model.aggregator", "model.network"):
            raise UserError(f"{word}: the study sets {field} itself; see its own flags")


def fold_numbers(words: str, protocol: str) -> list[int]:
    """Returns the folds that "all" or "1,3" names; UserError if the protocol lacks one."""
    if protocol not in PROTOCOLS:
        raise UserError(
            f"config.data.protocol is {protocol!r}; expected one of {', '.join(PROTOCOLS)}"
        )
    count = PROTOCOLS[protocol]
    if words == "all":
        return list(range(1, count + 1))
    try:
        folds = [int(word) for word in words.split(",")]
    except ValueError:
        folds = []
    if not folds or not all(1 <= fold <= count for fold in folds):
        raise UserError(f"--folds is {words!r}; expected all, or some of 1 to {count}, as in 1,2")
    return folds


def base_of(grid: Grid) -> ConfigDict:
    """Returns the experiment of the first branch: what all cells have in common."""
    return cell_config(grid, Cell("video", "lstm", 1, 0, next(iter(grid.variants))))


def cell_config(grid: Grid, cell: Cell) -> ConfigDict:
    """Returns the experiment that a cell trains."""
    argument = ",".join(f"{name}={getattr(cell, name)}" for name in _OF_THE_GRID)
    spec = f"{grid.spec}{',' if ':' in grid.spec else ':'}{argument}"
    config = override(load_config(spec), [*grid.overrides, *grid.variants[cell.variant]])
    config.seed = cell.seed
    # A start from earlier weights is given once for all networks: each takes what it has.
    init = dict(config.init)
    if cell.network == "late":
        folder = {b: str(grid.folder(dataclasses.replace(cell, network=b))) for b in BRANCHES}
        init = {f"{b}{part}": folder[b] for b in BRANCHES for part in ("", "_scoring")}
    elif cell.network in BRANCHES:
        init = {k: v for k, v in init.items() if not k.startswith(_other(cell.network))}
    with config.unlocked():
        config.init = ConfigDict(init, allow_dotted_keys=True)
    return config


def run_cells(
    grid: Grid,
    cells: Sequence[Cell],
    say: Callable[[str], None] | None = None,
    study: Sequence[Cell] | None = None,
) -> None:
    """Trains and scores the cells that have no result yet, in order.

    Args:
      grid: what they share.
      cells: of `plan_cells`.
      say: called with a line when a cell begins and when it ends; default: printed to stderr.
      study: all cells, of which `cells` are a share; for the count in that line.

    Raises:
      UserError: a cell's folder holds another one, or a config does not fit its network.
      SystemExit: a signal asked to stop; the same call goes on from there.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    study = study or cells
    check_cells(grid, cells)
    left = [cell for cell in cells if not _has_ended(grid, cell)]
    numbers = {cell: number for number, cell in enumerate(study, 1)}
    spent: list[float] = []
    for position, cell in enumerate(left):
        place = f"[{numbers[cell]}/{len(study)}]"
        say(f"{place} training {cell.name}{_estimate(spent, len(left) - position)}")
        began = time.perf_counter()
        config = cell_config(grid, cell)
        try:
            war = _train_cell(grid, cell, config, began)
        except UserError as error:
            reason = str(error)
            identity, dataset = _identity(config, cell), _fingerprint(config.data.path)
            write_failure(grid.folder(cell), cell, identity, dataset, reason)
            say(f"{place} {cell.name} failed: {reason}")
        else:
            spent.append(time.perf_counter() - began)
            say(f"{place} {cell.name}: WAR {100 * war:.1f}%, {spent[-1]:.0f} s")


def _train_cell(grid: Grid, cell: Cell, config: ConfigDict, began: float) -> float:
    """Trains a cell and writes its result; returns its WAR."""
    folder = grid.folder(cell)
    if cell.network == "late":
        for branch in BRANCHES:
            # Its folder may hold a checkpoint of before the failure, which nobody asked for.
            own = dataclasses.replace(cell, network=branch)
            stored = result_path(grid.folder(own))
            if stored.exists() and failure_of(read_result(stored.parent)) is not None:
                raise UserError(f"it is built from {own.name}, which failed")
    train(config, folder, quiet=True, report=False)
    featured = (cell.fold, cell.seed) == grid.featured
    evaluation = evaluate_run(folder, split="test", features=featured)
    seconds = time.perf_counter() - began
    write_result(folder, cell, _identity(config, cell), evaluation, seconds)
    return evaluation.results["metrics"]["war"]["value"]


def _estimate(spent: Sequence[float], left: int) -> str:
    """Returns, in words, how long the remaining cells may take; "" before the first has ended."""
    if not spent:
        return ""
    minutes = left * sum(spent) / len(spent) / 60
    return f"; {counted(left, 'cell')} left here, about {max(1, round(minutes))} min"


def _has_ended(grid: Grid, cell: Cell) -> bool:
    """Returns whether a cell needs no training: finished, or failed just as it is asked for."""
    folder = grid.folder(cell)
    if not result_path(folder).exists():
        return False
    stored = read_result(folder)
    if failure_of(stored) is None:
        return True
    # Late fusion may have failed for want of a branch that is there now.
    return cell.network != "late" and not _changes(grid, cell, stored)


def check_cells(grid: Grid, cells: Iterable[Cell]) -> None:
    """Raises UserError for what can be told of any cell before the first is trained.

    That is: a config that does not fit its network, or a finished cell of another experiment or
    dataset than is asked for.
    """
    for cell in cells:
        folder = grid.folder(cell)
        cell_config(grid, cell)
        if not result_path(folder).exists():
            continue
        stored = read_result(folder)
        # A failure is no result to lose: of another experiment, it is tried again.
        if failure_of(stored) is None and (changed := _changes(grid, cell, stored)):
            raise UserError(
                f"{folder} is of another experiment ({changed}); choose another --workdir"
            )


def _changes(grid: Grid, cell: Cell, stored: Mapping[str, Any]) -> str:
    """Returns, in words, how a stored result is not of the cell that is asked for; "" if it is."""
    config = cell_config(grid, cell)
    # A study made before a field existed had its default.
    complete = base_config()
    try:
        with complete.unlocked():
            complete.update(ConfigDict(stored["config"]))
        before = _identity(complete, cell)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        path = result_path(grid.folder(cell))
        raise UserError(
            f"{path} is damaged (its config: {error}); remove it and run the study again"
        ) from error
    return changed_fields(
        {**before, "dataset": stored["dataset"]},
        {**_identity(config, cell), "dataset": _fingerprint(config.data.path)},
    )


def _identity(config: ConfigDict, cell: Cell) -> dict[str, Any]:
    """Returns the config as JSON, without where late fusion starts from: the cell tells it."""
    plain = to_json(config)
    init = {subtree: folder for subtree, folder in plain["init"].items() if folder}
    return {**plain, "init": {} if cell.network == "late" else init}


def _other(branch: str) -> str:
    return next(name for name in BRANCHES if name != branch)


@functools.cache
def _fingerprint(path: str) -> str:
    return open_dataset(path).fingerprint
