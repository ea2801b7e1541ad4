"""The input pipeline of a torch user: a Dataset over the prepared records and a DataLoader."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

SAMPLE_RATE = 16_000


class Clips(Dataset):
    """Random slices of prepared clips: uint8 frames, and int16 sound if asked for.

    A slice is U(min_slice, 1) of a clip's middle `max_seconds`; its frames are those nearest to the
    centres of T equal parts.
    """

    def __init__(
        self,
        folder: str | Path,
        num_frames: int,
        image_size: int,
        min_slice: float = 0.5,
        max_seconds: float = 6.0,
        modalities: Sequence[str] = ("frames",),
    ) -> None:
        self.folder, self.num_frames, self.image_size = str(folder), num_frames, image_size
        self.min_slice, self.max_seconds = min_slice, max_seconds
        self.modalities = tuple(modalities)
        with (Path(folder) / "index.csv").open(newline="", encoding="utf-8") as file:
            self.count = sum(1 for _ in csv.DictReader(file))
        self._source: Any = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """Returns one clip: "frames" [T,H,W,3]; "audio" [S] and "audio_length" []; "row" []."""
        if self._source is None:
            # Opened where it is read: a reader cannot be sent to a worker.
            builder = tfds.builder_from_directory(self.folder)
            self._source = builder.as_data_source(split="all")
        record = self._source[row]
        start, stop = self._slice(record)
        item = {"row": torch.tensor(row)}
        if "frames" in self.modalities:
            item["frames"] = torch.from_numpy(self._frames(record, start, stop))
        if "audio" in self.modalities:
            sound = np.frombuffer(record["pcm"], "<i2")
            sound = sound[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]
            audio = torch.zeros(round(self.max_seconds * SAMPLE_RATE), dtype=torch.int16)
            count = min(len(sound), len(audio))
            audio[:count] = torch.from_numpy(sound[:count].astype(np.int16))
            item |= {"audio": audio, "audio_length": torch.tensor(count)}
        return item

    def _slice(self, record: dict[str, Any]) -> tuple[float, float]:
        times = record["timestamps"]
        seconds = len(record["pcm"]) / 2 / SAMPLE_RATE
        if len(times):
            interval = float(np.median(np.diff(times))) if len(times) > 1 else 1 / 30
            seconds = max(seconds, float(times[-1]) + interval)
        margin = max(0.0, (seconds - self.max_seconds) / 2)
        length, place = torch.rand(2).tolist()
        share = 1 - (1 - self.min_slice) * length
        first = (1 - share) * place
        whole = seconds - 2 * margin
        return margin + first * whole, margin + (first + share) * whole

    def _frames(self, record: dict[str, Any], start: float, stop: float) -> np.ndarray:
        size = self.image_size
        out = np.empty((self.num_frames, size, size, 3), np.uint8)
        chosen = nearest_frames(record["timestamps"], start, stop, self.num_frames)
        for frame, place in zip(chosen, out, strict=True):
            jpeg = np.frombuffer(record["frames"][frame], np.uint8)
            image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
            if image.shape[:2] != (size, size):
                shrinks = size <= min(image.shape[:2])
                way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                image = cv2.resize(image, (size, size), interpolation=way)
            # Swapping the channels is also the copy.
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=place)
        return out


def nearest_frames(
    timestamps: np.ndarray, start: float, stop: float, num_frames: int
) -> np.ndarray:
    """Returns int [T], the frames nearest in time to the centres of T equal parts of a span."""
    centres = start + (np.arange(num_frames) + 0.5) * ((stop - start) / num_frames)
    times = np.asarray(timestamps, np.float64)
    return np.searchsorted((times[1:] + times[:-1]) / 2, centres, side="left")


class EndlessBatches(Sampler[list[int]]):
    """Rows of batches, shuffled anew in every pass; passes follow each other without a gap."""

    def __init__(self, rows: int, batch_size: int, seed: int = 0) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        waiting: list[int] = []
        while True:
            while len(waiting) < self.batch_size:
                waiting += torch.randperm(self.rows, generator=generator).tolist()
            yield waiting[: self.batch_size]
            waiting = waiting[self.batch_size :]


def loader(clips: Clips, batch_size: int, workers: int, pinned: bool) -> DataLoader:
    """Returns endless batches; decoded by worker processes, or with 0 by the caller."""
    return DataLoader(
        clips,
        batch_sampler=EndlessBatches(len(clips), batch_size),
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_one_thread,
        prefetch_factor=2 if workers else None,
        # Threads of the record reader do not survive a fork: a forked worker may crash.
        multiprocessing_context="spawn" if workers else None,
    )


def _one_thread(worker: int) -> None:
    # Workers are as many as the cores.
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
