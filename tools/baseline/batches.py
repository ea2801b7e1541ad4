"""A host batch and its way to the device: pinned memory, asynchronous copies, packing of audio."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tools.baseline.frontend import segment_counts
from tools.baseline.models.resnet_lstm import Packing


class DeviceBatch(NamedTuple):
    """What a model's front end reads; a modality that is not there is None.

    frames: uint8 [B,T,H,W,3]. audio: int16 [B,S]. length: int64 [B], samples. label: int64 [B].
    packing: of the valid segments of the sound.
    """

    frames: Tensor | None
    audio: Tensor | None
    length: Tensor | None
    label: Tensor
    packing: Packing | None


class HostBatch:
    """Arrays of a batch as a loader with `pin_memory` hands them over."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], device: torch.device
    ) -> None:
        """Takes over a batch.

        Args:
          arrays: of an aver_jax batch.
          settings: `frontend.spectrogram`, which tells how many segments a clip has.
          device: where it goes.
        """
        self.device, self.settings = device, settings
        types = {"frames": np.uint8, "audio": np.int16, "audio_length": np.int64, "label": np.int64}
        self.tensors = {
            name: torch.from_numpy(np.array(arrays[name], kind))
            for name, kind in types.items()
            if name in arrays
        }
        if device.type == "cuda":
            self.tensors = {name: tensor.pin_memory() for name, tensor in self.tensors.items()}

    def __len__(self) -> int:
        return len(self.tensors["label"])

    def clip(self, position: int) -> "HostBatch":
        """Returns one clip as a batch of one."""
        arrays = {name: x.numpy()[position : position + 1] for name, x in self.tensors.items()}
        return HostBatch(arrays, self.settings, self.device)

    def on_device(self) -> DeviceBatch:
        """Returns the batch on the device, its copy under way."""
        moved = {name: x.to(self.device, non_blocking=True) for name, x in self.tensors.items()}
        packing = None
        if "audio" in moved:
            counts = segment_counts(self.settings, self.tensors["audio_length"].numpy())
            steps = int(segment_counts(self.settings, moved["audio"].shape[1]))
            packing = Packing.of_lengths(counts, steps, self.device)
        return DeviceBatch(
            moved.get("frames"),
            moved.get("audio"),
            moved.get("audio_length"),
            moved["label"],
            packing,
        )

    def into(self, batch: DeviceBatch) -> None:
        """Copies the batch, asynchronously, into one that is on the device."""
        places = {"frames": batch.frames, "audio": batch.audio, "audio_length": batch.length}
        for name, tensor in self.tensors.items():
            places.get(name, batch.label).copy_(tensor, non_blocking=True)
