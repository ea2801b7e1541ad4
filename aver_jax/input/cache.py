"""The clips of a training, decoded once: their grids of frames and their sound, in memory."""

import dataclasses
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.input.clips import (
    SAMPLE_RATE,
    ClipShape,
    clip_window,
    decode_clip,
    grid_frames,
    span_samples,
)
from aver_jax.input.dataset import Dataset
from aver_jax.input.known import known_part, video_extent
from aver_jax.input.sampling import frames_of_many
from aver_jax.modality import Modality

# What a machine needs beside the cache: batches, checkpoints, the operating system.
_LEFT_FREE = 0.1


@dataclasses.dataclass(frozen=True)
class ClipIndex:
    """Where things are in n cached clips: enough to plan batches, without a pixel or a sample.

    Attributes:
      shape: of a clip; `grid` = G.
      rows: int32 [n] rows of the dataset, at most once each; a clip's position is its place here.
      windows: float64 [n,2], what is used of each clip, seconds (`clips.clip_window`).
      extents: float64 [n,2], where each clip has frames, seconds (`known.video_extent`).
      times: float32 [n,G], seconds of the frames of the grid; G = 0 without frames.
      samples: int64 [n], samples of the whole clip.
    """

    shape: ClipShape
    rows: np.ndarray
    windows: np.ndarray
    extents: np.ndarray
    times: np.ndarray
    samples: np.ndarray

    def plan(self, rows: np.ndarray, slices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what a batch takes from the cache.

        Args:
          rows: int [b], rows of the dataset.
          slices: float64 [b,2], shares of the clips' windows.

        Returns:
          `position` int32 [b]. With frames: `frame_index` int32 [b,T] into the grid and
          `frame_times` as in a batch. With sound: `audio_start` int32 [b], the first sample in the
          stored sound, and `audio_length` int32 [b].
        """
        # For all clips at once: a fast model asks for thousands a second.
        shape = self.shape
        positions = self._position_of_row[rows]
        plan = {"position": positions}
        first, last = self.windows[positions].T
        start, stop = (first + share * (last - first) for share in np.asarray(slices).T)
        if Modality.VIDEO in shape.modalities:
            times = self.times[positions]
            # As `clips.span_arrays`: within that part of the span in which there are frames.
            begin, end = self.extents[positions].T
            begin, end = np.maximum(start, begin), np.minimum(stop, end)
            beside = begin >= end
            begin, end = np.where(beside, start, begin), np.where(beside, stop, end)
            chosen = frames_of_many(times, begin, end, shape.num_frames)
            plan["frame_index"] = chosen.astype(np.int32)
            seconds = np.take_along_axis(times, chosen, axis=1) - start[:, None]
            plan["frame_times"] = seconds.astype(np.float32)
        if Modality.AUDIO in shape.modalities:
            begin, end = span_samples(self.samples[positions], start, stop, shape)
            # Sound that ends before the window begins has nothing stored, and nothing taken.
            stored = begin - np.rint(first * SAMPLE_RATE).astype(np.int64)
            plan["audio_start"] = np.maximum(0, stored).astype(np.int32)
            plan["audio_length"] = (end - begin).astype(np.int32)
        return plan

    def __post_init__(self) -> None:
        positions = np.full(int(self.rows.max()) + 1, -1, np.int32)
        positions[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        object.__setattr__(self, "_position_of_row", positions)


@dataclasses.dataclass(frozen=True)
class ClipCache:
    """Cached clips.

    Attributes:
      index: where things are.
      frames: uint8 [n,G,H,W,3], the decoded grids; None without frames.
      sound: int16 [n,S+1], the samples of the windows, zeros after the end; None without sound.
        One more than a batch holds, since both ends of a window are rounded to samples.
    """

    index: ClipIndex
    frames: np.ndarray | None
    sound: np.ndarray | None

    def arrays(self, rows: np.ndarray, slices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the modality arrays of a batch, as `clips.clip_arrays` gives them."""
        plan, arrays = self.index.plan(rows, slices), {}
        positions = plan["position"]
        if self.frames is not None:
            count, grid, *frame = self.frames.shape
            # Not by an advanced index, which keeps other threads out while it copies.
            flat = positions[:, None] * np.int64(grid) + plan["frame_index"]
            arrays["frames"] = np.take(self.frames.reshape(count * grid, *frame), flat, axis=0)
            arrays["frame_times"] = plan["frame_times"]
        if self.sound is not None:
            arrays["audio"] = np.zeros((len(rows), self.index.shape.num_samples), np.int16)
            for i, (start, length) in enumerate(
                zip(plan["audio_start"], plan["audio_length"], strict=True)
            ):
                arrays["audio"][i, :length] = self.sound[positions[i], start : start + length]
            arrays["audio_length"] = plan["audio_length"]
        return arrays


def cache_bytes(clips: int, shape: ClipShape) -> int:
    """Returns bytes of a cache of so many clips."""
    frames = shape.grid * shape.image_size**2 * 3 if Modality.VIDEO in shape.modalities else 0
    sound = 2 * (shape.num_samples + 1) if Modality.AUDIO in shape.modalities else 0
    return clips * (frames + sound)


def available_memory() -> int | None:
    """Returns bytes that this process may still take, or None where the system does not tell.

    The least of what Linux says is available and what the process' control group leaves.
    """
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            # Cached pages of files count as used there, and are given back when asked for.
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            used = int((group / "memory.current").read_text()) - int(stat.get("inactive_file", 0))
            found.append(max(0, int(limit) - used))
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def check_memory(needed: int, what: str) -> None:
    """Raises UserError if so many bytes do not fit into this machine's memory."""
    available = available_memory()
    if available is not None and needed > (1 - _LEFT_FREE) * available:
        raise UserError(
            f"{what} needs {needed / 1e9:.1f} GB and {available / 1e9:.1f} GB of memory are "
            "available; lower config.data.cache_frames or config.data.image_size, or set "
            "--config.data.cache=none"
        )


def decode_cache(
    dataset: Dataset,
    rows: np.ndarray,
    shape: ClipShape,
    *,
    threads: int = 2,
    extra_bytes: int = 0,
    say: Callable[[str], None] | None = None,
) -> ClipCache:
    """Reads and decodes clips once, in threads.

    Args:
      dataset: an open dataset.
      rows: int [n], the clips.
      shape: what is kept of each; `grid` > 0 where there are frames.
      threads: clips decoded at a time; 0 is 1.
      extra_bytes: of memory that the caller will take as well.
      say: told what is decoded, and how long it took; None: nothing is shown.

    Raises:
      UserError: not enough memory, told before anything is read; a clip that has no frames, or
        whose images cannot be decoded.
    """
    rows, count = np.asarray(rows, np.int32), len(rows)
    has_frames = Modality.VIDEO in shape.modalities
    has_sound = Modality.AUDIO in shape.modalities
    if has_frames and not shape.grid:
        raise UserError("a cache of frames needs cache_frames, expected more than 0; 16 is usual")
    size = cache_bytes(count, shape)
    what = f"the cache of {count} clips" + (
        f" x {shape.grid} frames of {shape.image_size} px" if has_frames else ""
    )
    check_memory(size + extra_bytes, what)
    side = shape.image_size
    index = ClipIndex(
        shape=shape,
        rows=rows,
        windows=np.empty((count, 2)),
        extents=np.zeros((count, 2)),
        times=np.empty((count, shape.grid if has_frames else 0), np.float32),
        samples=np.empty(count, np.int64),
    )
    cache = ClipCache(
        index=index,
        frames=np.empty((count, shape.grid, side, side, 3), np.uint8) if has_frames else None,
        sound=np.zeros((count, shape.num_samples + 1), np.int16) if has_sound else None,
    )

    def fill(position: int) -> None:
        record = known_part(dataset.source[int(rows[position])], shape.modalities)
        window = clip_window(record, shape.max_seconds)
        index.windows[position] = window
        pcm = np.frombuffer(record["pcm"], "<i2")
        index.samples[position] = len(pcm)
        if cache.frames is not None:
            grid = grid_frames(record, window, shape)
            index.times[position] = record["timestamps"][grid]
            index.extents[position] = video_extent(record)
            decode_clip(record, grid, side, cache.frames[position])
        if cache.sound is not None:
            first = round(window[0] * SAMPLE_RATE)
            sound = pcm[first : first + cache.sound.shape[1]]
            cache.sound[position, : len(sound)] = sound

    # The threads are ours: OpenCV's own would fight over the cores.
    cv2.setNumThreads(1)
    began = time.perf_counter()
    executor = ThreadPoolExecutor(max(1, threads))
    try:
        for _ in tqdm(
            executor.map(fill, range(count)),
            "decoding",
            count,
            unit=" clips",
            disable=say is None or not sys.stderr.isatty(),
            leave=False,
        ):
            pass
    finally:
        # After an error the clips that wait are not decoded any more.
        executor.shutdown(cancel_futures=True)
    if say is not None:
        seconds = time.perf_counter() - began
        say(f"{what}: {size / 1e9:.2f} GB, decoded in {seconds:.1f} s")
    return cache
