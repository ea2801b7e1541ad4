"""The batches of a training: decoded on the fly, or taken from clips decoded once."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np

from aver_jax.input import (
    ClipCache,
    ClipIndex,
    Dataset,
    Loader,
    SideBySide,
    Split,
    cache_bytes,
    decode_cache,
    training_batches,
)
from aver_jax.input.cache import available_memory
from aver_jax.training import device_cache
from aver_jax.training.settings import DataSettings

Batch = dict[str, np.ndarray]
# Batches are decoded on the fly | taken from clips in the host's memory | or in the devices'.
CACHES = ("none", "host", "device")
# A plan is a few kilobytes and a millisecond's work: more threads would only get in each other's
# way.
_PLANNING_THREADS = 2


@dataclasses.dataclass(frozen=True)
class Batches(contextlib.AbstractContextManager):
    """The batches of a training; a context that ends the threads that make them.

    Attributes:
      iterator: one step's each, this process' share; with `clips`, plans of them.
      layout: of `clips`, one of `device_cache.LAYOUTS`; None without.
      clips: device-cached clips, or None.
    """

    iterator: Iterator[Batch]
    layout: str | None = None
    clips: device_cache.DeviceClips | None = None

    def take(self, steps: int) -> Batch:
        """Returns the next step's batch; those of several steps are stacked, [K, b, ...]."""
        if steps == 1:
            return next(self.iterator)
        taken = [next(self.iterator) for _ in range(steps)]
        return {name: np.stack([batch[name] for batch in taken]) for name in taken[0]}

    def __exit__(self, *_: object) -> None:
        self.iterator.close()


def open_batches(
    data: DataSettings,
    dataset: Dataset,
    split: Split,
    mesh: jax.sharding.Mesh,
    first_step: int,
    say: Callable[[str], None] | None = None,
) -> Batches:
    """Returns the batches of a training from a step on, decoding its clips first where it caches.

    Every process decodes all training clips, unless each device holds a shard of them: then a
    process decodes the shards of its own devices, and each device draws its share of a batch from
    its own shard. Batches then differ from those without a cache, and depend on the number of
    devices.

    Args:
      data: how clips are read.
      dataset: an open dataset.
      split: its split.
      mesh: from `data_parallel.make_mesh`; the train state is on it already, so that what is free
        is known.
      first_step: steps already done.
      say: told what is decoded; None: nothing is shown.

    Raises:
      UserError: the clips do not fit into the memory that is to hold them.
    """

    def stream(cache: ClipCache | ClipIndex | None = None) -> Iterator[Batch]:
        threads = data.threads
        if isinstance(cache, ClipIndex):
            threads = min(threads, _PLANNING_THREADS)
        loader = Loader(
            data.shape, data.batch_size, threads, jax.process_index(), jax.process_count()
        )
        return training_batches(
            dataset, split.train, split.labels, loader,
            seed=data.seed, min_slice=data.min_slice, first_step=first_step, cache=cache,
        )  # fmt: skip

    def decoded(rows: np.ndarray) -> ClipCache:
        later = _validation_bytes(data, split) // jax.process_count()
        return decode_cache(
            dataset, rows, data.shape, threads=data.threads, extra_bytes=later, say=say
        )

    if data.cache == "none":
        return Batches(stream())
    if data.cache == "host":
        return Batches(stream(decoded(split.train)))
    free = device_cache.free_memory(mesh, available_memory())
    clip_bytes = cache_bytes(1, data.shape)
    layout = device_cache.layout_for(len(split.train), clip_bytes, mesh.size, free)
    if layout == "replicated":
        cache = decoded(split.train)
        clips = device_cache.place_on_devices([cache], len(split.train), mesh, layout)
        return Batches(stream(cache.index), layout, clips)
    if say is not None:
        say(f"each of {mesh.size} devices holds and draws from its own shard of the clips")
    return _sharded(data, dataset, split, mesh, first_step, decoded)


def _sharded(
    data: DataSettings,
    dataset: Dataset,
    split: Split,
    mesh: jax.sharding.Mesh,
    first_step: int,
    decoded: Callable[[np.ndarray], ClipCache],
) -> Batches:
    """Returns batches of which each device draws its share from its own shard of the clips."""
    shards = device_cache.shards_of(split.train, mesh.size, data.seed)
    places = device_cache.local_places(mesh)
    caches = [decoded(shards[place]) for place in places]
    clips = device_cache.place_on_devices(caches, max(map(len, shards)), mesh, "sharded")
    loader = Loader(data.shape, data.batch_size // mesh.size, min(data.threads, _PLANNING_THREADS))
    streams = [
        training_batches(
            dataset, shards[place], split.labels, loader,
            seed=data.seed, min_slice=data.min_slice, first_step=first_step, cache=cache.index,
            shard=(place, mesh.size),
        )
        for place, cache in zip(places, caches, strict=True)
    ]  # fmt: skip
    return Batches(SideBySide(streams), "sharded", clips)


def _validation_bytes(data: DataSettings, split: Split) -> int:
    """Returns the bytes of the validation's batches, which stay in memory too."""
    seen = dataclasses.replace(data.shape, grid=data.shape.num_frames)
    return cache_bytes(len(split.validation) * data.validation_views, seen)
