"""Checkpoints of a run: the best and the last, saved in the background, restored onto a mesh."""

import contextlib
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from aver_jax.errors import UserError

# The item that holds a CRC-32 of every array: the formats below check none of them.
_SUMS = "checksums"


class DamagedCheckpoint(UserError):
    """A checkpoint whose content is not what was saved, or that cannot be read at all."""


def _score(metric: str) -> Callable[[dict[str, float]], float]:
    sign = -1.0 if metric.endswith("loss") else 1.0
    # Where it was not measured the last checkpoint is the best: of equals orbax takes the later.
    return lambda metrics: sign * metrics[metric] if metric in metrics else -math.inf


def _preservation(metric: str | None) -> preservation_policy.PreservationPolicy:
    last = preservation_policy.LatestN(1)
    if metric is None:
        return last
    best = preservation_policy.BestN(
        get_metric_fn=_score(metric),
        n=1,
        # A checkpoint saved on a signal has no metrics: it is kept while it is the last.
        keep_checkpoints_without_metrics=False,
    )
    return preservation_policy.AnyPreservationPolicy([last, best])


def last_saved_step(workdir: Path) -> int | None:
    """Returns the last step that a run folder has a checkpoint of; None without any."""
    folders = (workdir / "checkpoints").glob("[0-9]*")
    return max((int(path.name) for path in folders if path.name.isdecimal()), default=None)


class Checkpoints(contextlib.AbstractContextManager):
    """The folder `RUN/checkpoints`, one sub-folder per saved step.

    A step holds items: `variables` (what the model applies); if the run keeps a moving average of
    them, `ema` (of the parameters) and, of a model that has them, `ema_statistics` (of the batch
    statistics); and `training` (the rest of the train state), which prediction does not read.
    `checksums` has a CRC-32 of every array of them; steps saved before it was kept are not checked.

    Args:
      folder: `RUN/checkpoints`.
      select: the metric that names the best checkpoint, e.g. "validation/war"; a name that ends
        in "loss" is minimised. None keeps the last checkpoint alone.
      read_only: never create or delete anything.
    """

    def __init__(self, folder: Path, select: str | None = None, read_only: bool = False):
        self._folder = Path(folder).absolute()
        if read_only and not self._folder.is_dir():
            raise UserError(f"{self._folder.parent} has no checkpoints; is it a run folder?")
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers={
                name: ocp.StandardCheckpointHandler()
                for name in ("variables", "ema", "ema_statistics", "training")
            }
            | {_SUMS: ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_preservation(select),
                # Without it the manager ranks by metrics but never writes them down.
                best_fn=_score(select) if select else None,
                # A kill in the middle of a save leaves a temporary folder behind.
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                save_interval_steps=0 if read_only else 1,
                read_only=read_only,
            ),
        )

    def steps(self) -> list[int]:
        """Returns the saved steps in order."""
        return sorted(self._manager.all_steps())

    def step(self, which: str) -> int:
        """Returns the step that "best", "last" or a number names; UserError if there is none."""
        steps = self.steps()
        if not steps:
            raise UserError(f"no checkpoint in {self._folder}: the run has not saved one yet")
        if which == "last":
            return steps[-1]
        if which == "best":
            # Before the first validation no step has a score.
            best = self._manager.best_step()
            return steps[-1] if best is None else best
        if which.isdecimal() and int(which) in steps:
            return int(which)
        known = ", ".join(map(str, steps))
        raise UserError(f"no checkpoint {which!r} in {self._folder}; there are best, last, {known}")

    def save(self, step: int, items: dict[str, Any], metrics: dict[str, float] | None) -> None:
        """Saves trees under `step` in the background; metrics rank it among the others.

        Args:
          step: it is saved after.
          items: item name -> tree of arrays.
          metrics: scores by name; None where there are none.
        """
        saved = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        saved[_SUMS] = ocp.args.JsonSave({name: _sums(tree) for name, tree in items.items()})
        self._manager.save(step, args=ocp.args.Composite(**saved), metrics=metrics, force=True)

    def restore(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Restores the items named in `abstract`.

        Args:
          step: a saved step.
          abstract: item name -> tree of jax.ShapeDtypeStruct with shardings.

        Raises:
          UserError: the checkpoint is of another model.
          DamagedCheckpoint: it cannot be read, or an array is not what was saved.
        """
        wanted = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        if self.has(step, _SUMS):
            wanted[_SUMS] = ocp.args.JsonRestore()
        try:
            stored = self._manager.item_metadata(step)
            for name in set(abstract) & {"variables", "ema"}:
                self._check_fit(step, stored[name], abstract[name])
            restored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
            restored = {name: restored[name] for name in wanted}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            what = f"is damaged or incomplete ({type(error).__name__})"
            raise self._damaged(step, what) from error
        for name, sums in restored.pop(_SUMS, {}).items():
            found = _sums(restored[name]) if name in restored else {}
            for path, (dtype, value) in found.items():
                before, expected = sums.get(path, (dtype, None))
                # Read as another type, an array has other bytes.
                if dtype == before and value != expected:
                    raise self._damaged(step, f"is damaged: {name}/{path} is not what was saved")
        return restored

    def _damaged(self, step: int, what: str) -> DamagedCheckpoint:
        others = ", ".join(str(s) for s in self.steps() if s != step) or "none"
        return DamagedCheckpoint(
            f"checkpoint {self._folder / str(step)} {what}; other steps of this run: {others}"
        )

    def set_aside(self, step: int) -> Path:
        """Moves a damaged step to `RUN/damaged_checkpoints`, out of the way; returns where."""
        aside = self._folder.parent / "damaged_checkpoints"
        aside.mkdir(exist_ok=True)
        number = sum(path.name.startswith(f"{step}.") for path in aside.iterdir())
        moved = (self._folder / str(step)).rename(aside / f"{step}.{number}")
        self._manager.reload()
        return moved

    def _check_fit(self, step: int, stored: Any, abstract: Any) -> None:
        """Raises UserError if a checkpoint's arrays are not those of the model."""
        found, expected = _shapes(stored.tree), _shapes(abstract)
        misfits = [
            f"{path} is {list(found[path]) if path in found else 'missing'}, this model has "
            f"{list(expected[path]) if path in expected else 'none'}"
            for path in sorted(found.keys() | expected.keys())
            if found.get(path) != expected.get(path)
        ]
        if misfits:
            more = f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""
            raise UserError(
                f"checkpoint {self._folder / str(step)} does not fit this model: "
                f"{misfits[0]}{more}; is this the run of another model?"
            )

    def has(self, step: int, item: str) -> bool:
        """Tells whether a saved step holds an item."""
        return (self._folder / str(step) / item).is_dir()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.wait_until_finished()
        self._manager.close()


def _sums(tree: Any) -> dict[str, tuple[str, int]]:
    """Returns dtype and CRC-32 of every array of a tree by its path; of those whole on a device."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    sums = {}
    for path, leaf in leaves:
        if isinstance(leaf, jax.Array):
            if not leaf.is_fully_replicated:
                continue
            leaf = leaf.addressable_data(0)
        content = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
        sums[jax.tree_util.keystr(path, simple=True, separator="/")] = (
            str(leaf.dtype),
            zlib.crc32(content),
        )
    return sums


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}


def abstract_like(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Returns shapes, dtypes and shardings of a tree (of arrays or shapes), to restore onto."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
