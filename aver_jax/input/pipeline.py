"""Batches from a prepared dataset: deterministic, sharded by process, resumable at any step.

The order of the grain stages is what makes the batches independent of the number of processes:
everything random is drawn for a global position first, and the positions are sliced by process
afterwards. The position is the step, so there is no iterator state to save.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from aver_jax.errors import UserError
from aver_jax.input.cache import ClipCache, ClipIndex
from aver_jax.input.clips import ClipShape, clip_arrays
from aver_jax.input.dataset import Dataset
from aver_jax.input.sampling import time_slice, view_slices

Batch = dict[str, np.ndarray]


def steps_per_epoch(rows: Sequence[int] | np.ndarray, batch_size: int) -> int:
    """Returns training steps of one epoch: whole batches in one pass over the rows.

    Passes follow each other without a gap, so the clips left over begin the next epoch and none
    is ever dropped.

    Raises:
      UserError: there are fewer rows than one batch holds.
    """
    if len(rows) < batch_size:
        raise UserError(
            f"the training part has {len(rows)} clips, expected at least one batch of "
            f"{batch_size}; lower batch_size to {len(rows)} or less, or prepare more clips"
        )
    return len(rows) // batch_size


def clips_cut(dataset: Dataset, rows: np.ndarray, max_seconds: float) -> int:
    """Counts rows longer than `max_seconds`, of which only the middle is used."""
    return int(np.sum(dataset.index["seconds"][rows] > max_seconds))


@dataclasses.dataclass(frozen=True)
class Loader:
    """How the clips of batches are read.

    Attributes:
      shape: of a clip.
      batch_size: B, of all processes together.
      threads: batches made at a time, each in its thread; 0 makes them in the caller's.
      process_index: this process, 0 ... process_count - 1.
      process_count: processes that share a batch, element p, p + process_count, ... to process p.

    Raises:
      UserError: a batch that the processes do not divide.
    """

    shape: ClipShape
    batch_size: int
    threads: int = 2
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise UserError(
                f"batch size {self.batch_size} is not divisible by {self.process_count} processes; "
                f"choose a multiple of {self.process_count}"
            )


def training_batches(
    dataset: Dataset,
    rows: np.ndarray,
    labels: np.ndarray,
    loader: Loader,
    *,
    seed: int,
    min_slice: float = 0.5,
    first_step: int = 0,
    cache: ClipCache | ClipIndex | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Returns endless training batches, reshuffled at every pass, a random time slice of each clip.

    Args:
      dataset: an open dataset.
      rows: int [n] rows that train.
      labels: int32 [rows of the dataset] (`Split.labels`).
      loader: shapes, batch size, threads and processes.
      seed: fixes the order, the slices and `batch["seed"]`.
      min_slice: slices are U(min_slice, 1) of the clip; 1 uses the whole clip.
      first_step: the first batch is the one that an uninterrupted run sees at this step.
      cache: of these rows and this shape, of which batches are made instead of decoding; with a
        `ClipCache` the same ones, bit for bit; with a `ClipIndex` only their plans
        (`ClipIndex.plan`) in place of the arrays of frames and sound.
      shard: (i, n): `rows` are the i-th of n shards of the clips, each with a stream of its own.

    Returns:
      A grain iterator (with `close()`) of dicts, b = B / process_count: the arrays of
      `clips.clip_arrays`, and label int32 [b], mask bool [b] (all True), row int32 [b], seed
      uint32 [b], distinct for the first 2**32 positions of a run.

    Raises:
      UserError: fewer rows than one batch.
    """
    steps_per_epoch(rows, loader.batch_size)
    time_slice(np.random.default_rng(0), min_slice)  # a wrong min_slice fails here, not in a thread
    key = np.random.SeedSequence(seed).generate_state(1)[0]
    number, shards = shard
    order = np.random.SeedSequence([seed, number]).generate_state(1)[0] if shards > 1 else key

    def draw(row: int, rng: np.random.Generator) -> dict[str, Any]:
        start, stop = time_slice(rng, min_slice)
        return {"row": row, "slice": np.array([start, stop]), "mask": np.True_}

    def name(position: int, element: dict[str, Any]) -> dict[str, Any]:
        # One to one for a given seed, so that no two examples of a run share their randomness.
        return element | {"seed": np.uint32((position * shards + number) % 2**32) ^ key}

    import grain  # here, not above: it imports jax, which `aver --help` need not wait for

    plan = grain.MapDataset.source(np.asarray(rows, np.int32)).seed(int(order)).shuffle()
    # Endless enough, and within what a length may be: grain's endless repeat overflows in `batch`.
    plan = plan.repeat(2**48 // len(rows))
    plan = plan.random_map(draw).map_with_index(name)
    if cache is None:
        arrays = _decoding(dataset, loader.shape)
    else:
        index = cache if isinstance(cache, ClipIndex) else cache.index
        if index.shape != loader.shape or not np.isin(rows, index.rows).all():
            raise ValueError(
                f"the cache is one of other clips or of {index.shape}, not {loader.shape}"
            )
        arrays = index.plan if cache is index else cache.arrays
    return _batches(plan, arrays, labels, loader, first_step)


def evaluation_batches(
    dataset: Dataset, rows: np.ndarray, labels: np.ndarray, loader: Loader, views: int = 1
) -> Iterator[Batch]:
    """Yields every clip once per view, in the order of `rows`, a clip's views side by side.

    The last batch is filled up by repeating the last clip with mask False, so that all batches
    have one shape and all processes the same number of batches. Keys as for `training_batches`;
    `seed` is the position; `views` slices are those of `sampling.view_slices`.

    Raises:
      UserError: no rows, or fewer than one view.
    """
    if not len(rows):
        raise UserError("no clips to evaluate, expected at least one; choose another split or fold")
    slices = view_slices(views)
    batch_size = loader.batch_size
    real = len(rows) * views

    def element(position: int) -> dict[str, Any]:
        clip, view = divmod(min(position, real - 1), views)
        return {
            "row": np.int32(rows[clip]),
            "slice": slices[view],
            "mask": np.bool_(position < real),
            "seed": np.uint32(position),
        }

    import grain

    plan = grain.MapDataset.range(-(-real // batch_size) * batch_size).map(element)
    return _batches(plan, _decoding(dataset, loader.shape), labels, loader, first_step=0)


class SideBySide:
    """Concatenates the batches of several iterators; has `close()`."""

    def __init__(self, iterators: Sequence[Iterator[Batch]]):
        self._iterators = iterators

    def __iter__(self) -> "SideBySide":
        return self

    def __next__(self) -> Batch:
        batches = [next(iterator) for iterator in self._iterators]
        return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}

    def close(self) -> None:
        """Ends the threads of all."""
        for iterator in self._iterators:
            iterator.close()


# (rows [b], slices [b,2]) -> the modality arrays of a batch, or what stands for them.
_Arrays = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


def _decoding(dataset: Dataset, shape: ClipShape) -> _Arrays:
    return lambda rows, slices: clip_arrays(_Records(dataset, rows), slices, shape)


def _batches(
    plan: Any,
    arrays: _Arrays,
    labels: np.ndarray,
    loader: Loader,
    first_step: int,
) -> Iterator[Batch]:
    """Slices the plan by process, batches it, and only then reads and decodes."""

    def load(elements: dict[str, np.ndarray]) -> Batch:
        rows = elements["row"]
        return arrays(rows, elements["slice"]) | {
            "label": labels[rows].astype(np.int32),
            "mask": elements["mask"],
            "row": rows,
            "seed": elements["seed"],
        }

    import grain

    # Frames are small and the threads are ours: OpenCV's own would fight over the cores.
    cv2.setNumThreads(1)
    count, threads = loader.process_count, loader.threads
    plan = plan[loader.process_index :: count].batch(loader.batch_size // count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return iter(plan.map(load)[first_step:].to_iter_dataset(options))


@dataclasses.dataclass(frozen=True)
class _Records:
    """The records of some rows, read when asked for: a batch of them would be 30 MB of JPEG."""

    dataset: Dataset
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.dataset.source[int(self.rows[position])]
