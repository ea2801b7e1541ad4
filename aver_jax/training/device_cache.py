"""The clips of a training in the memory of its devices, and batches taken from them in the step."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aver_jax.errors import UserError
from aver_jax.input import ClipCache
from aver_jax.runtime.data_parallel import AXIS, largest_of_processes

LAYOUTS = ("replicated", "sharded")
# Of what is free when the clips are placed, beside the train state; the rest is for the step.
SHARE = 0.6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeviceClips:
    """Clips in device memory; an argument of the compiled step, never a constant in it.

    Attributes:
      frames: uint8 [n, G, side * side * 3], None without frames. A frame is one axis: some
        accelerators pad the last axis of an array, and three colours to 128.
      sound: int16 [n, S + 1], None without sound.
      side: H = W, pixels.
    """

    frames: jax.Array | None
    sound: jax.Array | None
    side: int = dataclasses.field(metadata={"static": True})


def gathered(clips: DeviceClips, plan: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the batch that a plan asks for, as the host would have made it; runs in the step.

    Args:
      clips: all of them, or this device's shard.
      plan: of `aver_jax.input.ClipIndex.plan` (its positions are those in `clips`), and label,
        mask, row and seed.
    """
    taken = ("position", "frame_index", "audio_start")
    batch = {name: value for name, value in plan.items() if name not in taken}
    position = plan["position"]
    # The host drew the indices and knows that they are inside.
    inside = "promise_in_bounds"
    if clips.frames is not None:
        frames = clips.frames.at[position[:, None], plan["frame_index"]].get(mode=inside)
        batch["frames"] = frames.reshape(*frames.shape[:2], clips.side, clips.side, 3)
    if clips.sound is not None:
        samples = clips.sound.shape[1] - 1
        sound = clips.sound.at[position].get(mode=inside)
        # With S zeros behind it, S samples can be cut out from any start.
        sound = jax.numpy.pad(sound, ((0, 0), (0, samples)))
        cut = jax.vmap(lambda x, start: jax.lax.dynamic_slice(x, (start,), (samples,)))
        sound = cut(sound, plan["audio_start"])
        within = jax.numpy.arange(samples)[None, :] < plan["audio_length"][:, None]
        batch["audio"] = jax.numpy.where(within, sound, jax.numpy.int16(0))
    return batch


def free_memory(mesh: Mesh, host_memory: int | None) -> int | None:
    """Returns bytes free on the fullest device of this process; None where it is not known.

    Args:
      mesh: from `data_parallel.make_mesh`.
      host_memory: bytes free on the host, which devices that are CPUs share; None: not known.
    """
    devices = mesh.local_mesh.devices.flat
    statistics = [device.memory_stats() or {} for device in devices]
    if all({"bytes_limit", "bytes_in_use"} <= known.keys() for known in statistics):
        return min(known["bytes_limit"] - known["bytes_in_use"] for known in statistics)
    if devices[0].platform == "cpu" and host_memory is not None:
        return host_memory // len(statistics)
    return None


def layout_for(clips: int, clip_bytes: int, devices: int, free: int | None) -> str:
    """Returns how the clips lie in the devices' memory; all processes must ask together.

    Args:
      clips: how many.
      clip_bytes: bytes of one.
      devices: of all processes.
      free: bytes free on this process' fullest device; None (not known) counts as enough.

    Returns:
      "replicated", every device holds all clips; or "sharded", each its own shard, where all do not
      fit into `SHARE` of what is free.

    Raises:
      UserError: not even the shards fit.
    """
    whole, part = clips * clip_bytes, -(-clips // devices) * clip_bytes

    def fits(needed: int) -> bool:
        lacking = free is not None and needed > SHARE * free
        return not largest_of_processes(int(lacking))

    if fits(whole):
        return "replicated"
    if devices > 1 and fits(part):
        return "sharded"
    among = f" ({part / 1e9:.1f} GB on each of {devices} devices)" if devices > 1 else ""
    room = "what another process has" if free is None else f"{SHARE * free / 1e9:.1f} GB"
    raise UserError(
        f"config.data.cache is 'device', but {clips} clips are {whole / 1e9:.1f} GB{among} and "
        f"{room} is free for them ({SHARE:.0%} of a device's free memory); lower "
        "config.data.cache_frames or config.data.image_size, or set --config.data.cache=host"
    )


def shards_of(rows: np.ndarray, devices: int, seed: int) -> list[np.ndarray]:
    """Splits rows among devices, at random: rows that are neighbours are alike.

    Args:
      rows: int [n], n >= devices.
      devices: how many shards, whose sizes differ by one at most.
      seed: fixes the shards.
    """
    mixed = np.random.default_rng(np.random.SeedSequence([seed, 1])).permutation(rows)
    return [np.sort(part) for part in np.array_split(mixed, devices)]


def local_places(mesh: Mesh) -> list[int]:
    """Returns which places along the mesh are devices of this process, in order."""
    mine = jax.process_index()
    return [i for i, device in enumerate(mesh.devices.flat) if device.process_index == mine]


def place_on_devices(
    caches: Sequence[ClipCache], rows: int, mesh: Mesh, layout: str
) -> DeviceClips:
    """Brings decoded clips into the devices' memory.

    Args:
      caches: one of all clips ("replicated"), or one of each device of this process, in the order
        of the mesh ("sharded").
      rows: clips of the largest shard, to which the others are filled up with zeros.
      mesh: from `data_parallel.make_mesh`.
      layout: one of `LAYOUTS`.

    Returns:
      Global arrays; sharded ones have an axis more, [devices, n, ...].
    """
    sharded = layout == "sharded"
    sharding = NamedSharding(mesh, P(AXIS) if sharded else P())
    places = local_places(mesh)

    def laid(parts: Sequence[np.ndarray | None]) -> jax.Array | None:
        if parts[0] is None:
            return None
        parts = [part.reshape(*part.shape[:2], -1) if part.ndim > 2 else part for part in parts]
        if not sharded:
            return jax.make_array_from_callback(
                parts[0].shape, sharding, lambda index: parts[0][index]
            )

        def of_device(index: tuple[slice, ...]) -> np.ndarray:
            part = parts[places.index(index[0].start or 0)]
            missing = [(0, rows - len(part))] + [(0, 0)] * (part.ndim - 1)
            return np.pad(part, missing)[None]

        shape = (mesh.size, rows, *parts[0].shape[1:])
        return jax.make_array_from_callback(shape, sharding, of_device)

    frames, sound = [cache.frames for cache in caches], [cache.sound for cache in caches]
    return DeviceClips(laid(frames), laid(sound), caches[0].index.shape.image_size)
