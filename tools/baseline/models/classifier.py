"""A front end and a network as one module, integers in and logits out; how it is compiled."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from aver_jax.bench.worker.case_files import CaseFiles
from tools.baseline.batches import DeviceBatch
from tools.baseline.frontend import normalized, packed_segments
from tools.baseline.models import mrpn, resnet_lstm, timesformer, weights


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a model runs.

    Attributes:
      compiled: whether torch.compile is used, on the front end and on what repeats: a block of the
        transformer (compiled once for all blocks), or a whole CNN. Else eager.
      autotuned: whether the compiler times its own matrix products against the libraries'.
      temporal: one of `timesformer.TEMPORAL`.
    """

    compiled: bool = False
    autotuned: bool = False
    temporal: str = "matmul"

    def __str__(self) -> str:
        words = ["compiled blocks" if self.compiled else "eager"]
        words += ["autotuned"] if self.autotuned else []
        words += [f"temporal {self.temporal}"] if self.temporal != "matmul" else []
        return ", ".join(words)


class Classifier(nn.Module):
    """Logits of a batch of integers.

    Attributes:
      network: the model proper.
      state: its weights as loaded, and their sources.
    """

    def __init__(self, files: CaseFiles, device: torch.device, mode: Mode) -> None:
        """Builds the model of a case with its weights.

        Raises:
          ValueError: a model that the baseline does not have.
        """
        super().__init__()
        self.frontend, self.half = files.settings["frontend"], files.half
        fields, classes = files.model, files.settings["num_classes"]
        self.transformer = fields["name"] == "timesformer"
        if self.transformer:
            self.state = weights.timesformer_state(files.variables)
            self.network = timesformer.network(fields, classes, mode.temporal)
        else:
            self.state = weights.resnet_state(files.variables)
            kind = mrpn.Mrpn if fields["name"] == "mrpn" else resnet_lstm.ResNetLstm
            self.network = kind(fields, classes)
        weights.load(self.network, self.state)
        self.to(device, memory_format=torch.channels_last)
        if mode.compiled:
            self._compile(mode)

    def _compile(self, mode: Mode) -> None:
        options = {"mode": "max-autotune-no-cudagraphs"} if mode.autotuned else {}
        self.inputs = torch.compile(self.inputs, **options)
        for module in self.modules():
            if isinstance(module, timesformer.Block | resnet_lstm.ResNet):
                module.compile(**options)

    def inputs(self, batch: DeviceBatch) -> dict[str, Any]:
        """Returns the arguments of the network, floats, for a batch of integers."""
        given = {}
        if batch.frames is not None:
            frames = normalized(batch.frames, self.frontend["normalization"])
            # Channels-last as they lie.
            given["frames"] = frames if self.transformer else frames.permute(0, 1, 4, 2, 3)
        if batch.audio is not None:
            given["segments"] = packed_segments(
                self.frontend["spectrogram"], batch.audio, batch.length, batch.packing.index
            )
        return given

    def forward(self, batch: DeviceBatch) -> tuple[Tensor, ...]:
        """Returns logits float32 [B, C]: the model's own, then the auxiliary ones."""
        given = self.inputs(batch)
        if not self.transformer:
            given = {"frames": None, "segments": None, "packing": batch.packing} | given
        with torch.autocast(batch.label.device.type, torch.bfloat16, enabled=self.half):
            logits = self.network(**given)
        return (logits,) if self.transformer else logits
