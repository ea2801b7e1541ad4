"""What a training is fed: batches decoded on the fly, or taken from clips decoded once."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from aver_jax.input import (
    ClipShape,
    Dataset,
    SideBySide,
    Split,
    cache_bytes,
    decode_cache,
    training_batches,
)
from aver_jax.input.cache import available_memory
from aver_jax.training import device_cache

Batch = dict[str, np.ndarray]
# Batches are decoded on the fly | taken from clips in the host's memory | or in the devices'.
CACHES = ("none", "host", "device")
# A plan is a few kilobytes and a millisecond's work: more threads would only get in each other's
# way.
_PLANNING_THREADS = 2


@dataclasses.dataclass(frozen=True)
class Feed:
    """Where a training's batches come from.

    Attributes:
      batches: one step's each, this process' share; with `resident`, plans of them.
      layout: of `resident`, one of `device_cache.LAYOUTS`; None without.
      resident: the clips in the devices' memory, or None.
    """

    batches: Iterator[Batch]
    layout: str | None = None
    resident: device_cache.Resident | None = None

    def take(self, steps: int) -> Batch:
        """Returns the next step's batch; those of several steps behind each other, [K, b, ...]."""
        if steps == 1:
            return next(self.batches)
        taken = [next(self.batches) for _ in range(steps)]
        return {name: np.stack([batch[name] for batch in taken]) for name in taken[0]}

    def close(self) -> None:
        """Ends the threads that make batches."""
        self.batches.close()


def open_feed(
    config: Any,
    dataset: Dataset,
    parts: Split,
    mesh: jax.sharding.Mesh,
    first_step: int,
    say: Callable[[str], None] | None = None,
) -> Feed:
    """Returns the batches of a training from a step on, decoding its clips first where it caches.

    Every process decodes all training clips, unless the devices hold a part of them each: then a
    process decodes the parts of its own devices, and each device draws its share of a batch from
    its own part. Then batches are other ones than without a cache, and depend on the number of
    devices.

    Args:
      config: the experiment; `data`, `batch_size` and `seed` are read.
      dataset: an open dataset.
      parts: its split.
      mesh: from `mesh.make_mesh`; the train state is on it already, so that what is free is
        known.
      first_step: steps already done.
      say: told what is decoded; None: nothing is shown.

    Raises:
      UserError: the clips do not fit into the memory that is to hold them.
    """
    data = config.data
    shape = ClipShape(
        data.num_frames, data.image_size, data.max_seconds, tuple(data.modalities),
        data.cache_frames,
    )  # fmt: skip
    if data.cache == "none":
        return Feed(_batches(config, dataset, parts, first_step))
    count = len(parts.train)
    later = _validation_bytes(config, parts) // jax.process_count()
    decoding = {"threads": data.threads, "extra_bytes": later, "say": say}
    if data.cache == "host":
        cache = decode_cache(dataset, parts.train, shape, **decoding)
        return Feed(_batches(config, dataset, parts, first_step, cache=cache))

    free = device_cache.free_memory(mesh, available_memory())
    layout = device_cache.layout_for(count, cache_bytes(1, shape), mesh.size, free)
    if layout == "replicated":
        cache = decode_cache(dataset, parts.train, shape, **decoding)
        clips = device_cache.placed(
            [cache.frames], [cache.sound], count, mesh, shape.image_size, layout
        )
        index = cache.index
        batches = _batches(config, dataset, parts, first_step, cache=index, plans=True)
        return Feed(batches, layout, clips)

    rows_of = device_cache.parts_of(parts.train, mesh.size, config.seed)
    places = device_cache.local_places(mesh)
    if say is not None:
        say(f"each of {mesh.size} devices holds and draws from its own part of the clips")
    caches = [decode_cache(dataset, rows_of[place], shape, **decoding) for place in places]
    clips = device_cache.placed(
        [cache.frames for cache in caches], [cache.sound for cache in caches],
        max(map(len, rows_of)), mesh, shape.image_size, layout,
    )  # fmt: skip
    streams = [
        _batches(
            config, dataset, parts, first_step, cache=cache.index, plans=True,
            rows=rows_of[place], part=(place, mesh.size),
        )
        for place, cache in zip(places, caches, strict=True)
    ]  # fmt: skip
    return Feed(SideBySide(streams), layout, clips)


def _batches(
    config: Any,
    dataset: Dataset,
    parts: Split,
    first_step: int,
    *,
    cache: Any = None,
    plans: bool = False,
    rows: np.ndarray | None = None,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Returns the training batches of this process, or of one device's part of the clips."""
    data, whole = config.data, part[1] == 1
    return training_batches(
        dataset,
        parts.train if rows is None else rows,
        parts.labels,
        batch_size=config.batch_size // part[1],
        seed=config.seed,
        first_step=first_step,
        num_frames=data.num_frames,
        image_size=data.image_size,
        min_slice=data.min_slice,
        max_seconds=data.max_seconds,
        modalities=data.modalities,
        process_index=jax.process_index() if whole else 0,
        process_count=jax.process_count() if whole else 1,
        threads=min(data.threads, _PLANNING_THREADS) if plans else data.threads,
        cache_frames=data.cache_frames,
        cache=cache,
        part=part,
    )


def _validation_bytes(config: Any, parts: Split) -> int:
    """Returns the bytes of the validation's batches, which stay in memory too."""
    data = config.data
    seen = ClipShape(data.num_frames, data.image_size, data.max_seconds, tuple(data.modalities))
    seen = dataclasses.replace(seen, grid=data.num_frames)  # as many frames as a batch holds
    return cache_bytes(len(parts.validation) * config.evaluation.views, seen)
