"""A grid of trainings: its cells, the config of each, and running them one after the other.

A cell leaves a run folder with `result.json` and `test.npz` in it. Both appear whole, the result
last: a study that was stopped goes on with the cell it was in, and keeps the finished ones.
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aver_jax.checks import changed_fields
from aver_jax.config import base_config, load_config, override, to_json
from aver_jax.errors import UserError
from aver_jax.evaluate import Evaluation, evaluate_run
from aver_jax.files import whole, write_whole
from aver_jax.input import PROTOCOLS, open_dataset
from aver_jax.train import train

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
        """The run folder of a cell."""
        return self.workdir / "cells" / cell.name


def plan_cells(
    networks: Iterable[str],
    aggregators: Iterable[str],
    folds: Iterable[int],
    seeds: Iterable[int],
    variants: Iterable[str] = ("",),
) -> list[Cell]:
    """Every cell, in the order in which they run.

    All trainings of a network follow one another, so that each compiles once; late fusion comes
    after the branches it is built from.

    Raises:
      UserError: an unknown network, or late fusion without its branches.
    """
    networks = list(dict.fromkeys(networks))
    unknown = [name for name in networks if name not in NETWORKS]
    if unknown:
        raise UserError(f"unknown network {unknown[0]!r}; expected some of {', '.join(NETWORKS)}")
    missing = [name for name in BRANCHES if name not in networks]
    if "late" in networks and missing:
        raise UserError(
            f"late fusion is built from the runs of video and audio; add {', '.join(missing)} to "
            "--networks, or leave late out"
        )
    aggregators, folds, seeds = (list(dict.fromkeys(x)) for x in (aggregators, folds, seeds))
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
      say: called with a line for every finished cell; default: printed to stderr.
      study: all cells, of which `cells` are a share; for the count in that line.

    Raises:
      UserError: a cell cannot be trained, or its folder holds another one.
      SystemExit: a signal asked to stop; the same call goes on from there.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    study = study or cells
    check_cells(grid, cells)
    for cell in cells:
        folder = grid.folder(cell)
        if _result(folder).exists():
            continue
        began = time.perf_counter()
        config = cell_config(grid, cell)
        try:
            train(config, folder, quiet=True, report=False)
        except UserError as error:
            raise UserError(f"{cell.name}: {error}") from error
        featured = (cell.fold, cell.seed) == grid.featured
        evaluation = evaluate_run(folder, split="test", features=featured)
        seconds = time.perf_counter() - began
        write_result(grid, cell, config, evaluation, seconds)
        done = sum(_result(grid.folder(other)).exists() for other in study)
        war = evaluation.results["metrics"]["war"]["value"]
        say(f"[{done}/{len(study)}] {cell.name}: WAR {100 * war:.1f}%, {seconds:.0f} s")


def check_cells(grid: Grid, cells: Iterable[Cell]) -> None:
    """Raises UserError for what can be told of any cell before the first is trained.

    That is: a config that does not fit its network, or a finished cell of another experiment or
    dataset than is asked for.
    """
    for cell in cells:
        config, folder = cell_config(grid, cell), grid.folder(cell)
        if not _result(folder).exists():
            continue
        stored = read_result(folder)
        # A study made before a field existed had its default.
        complete = base_config()
        with complete.unlocked():
            complete.update(ConfigDict(stored["config"]))
        changed = changed_fields(
            {**_identity(complete, cell), "dataset": stored["dataset"]},
            {**_identity(config, cell), "dataset": _fingerprint(config.data.path)},
        )
        if changed:
            raise UserError(
                f"{folder} is of another experiment ({changed}); choose another --workdir"
            )


def write_result(
    grid: Grid, cell: Cell, config: ConfigDict, evaluation: Evaluation, seconds: float
) -> None:
    """Writes test.npz, then result.json."""
    folder, clips = grid.folder(cell), evaluation.clips
    index = evaluation.dataset.index
    arrays = {
        "row": clips.rows,
        "label": evaluation.labels,
        "actor": index["actor"][clips.rows],
        "clip_id": index["clip_id"][clips.rows],
        "logits": clips.logits,
        **{f"logits_{name}": logits for name, logits in clips.branches.items()},
    }
    if clips.features is not None:
        arrays["features"] = clips.features
    with whole(folder / "test.npz") as path:
        np.savez_compressed(path, **arrays)
    result = {
        "cell": dataclasses.asdict(cell),
        "config": _identity(config, cell),
        "dataset": evaluation.dataset.fingerprint,
        "results": evaluation.results,
        "seconds": round(seconds, 1),
    }
    write_whole(_result(folder), json.dumps(result, indent=1) + "\n")


def read_result(folder: Path) -> dict[str, Any]:
    """Returns what `write_result` wrote; UserError if it is damaged."""
    try:
        result = json.loads(_result(folder).read_text())
        if not {"cell", "config", "dataset", "results"} <= result.keys():
            raise ValueError("parts are missing")
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{_result(folder)} is damaged ({error}); remove it and run the study again"
        ) from error
    return result


def _result(folder: Path) -> Path:
    return folder / "result.json"


def _identity(config: ConfigDict, cell: Cell) -> dict[str, Any]:
    """The config as JSON; where late fusion starts from is told by the cell, wherever it lies."""
    plain = to_json(config)
    init = {subtree: folder for subtree, folder in plain["init"].items() if folder}
    return {**plain, "init": {} if cell.network == "late" else init}


def _other(branch: str) -> str:
    return next(name for name in BRANCHES if name != branch)


@functools.cache
def _fingerprint(path: str) -> str:
    return open_dataset(path).fingerprint
