"""ResNet and LSTM over frames or over segments of sound, tuned for PyTorch (Chang 2021, 4.4).

Images are channels-last. Of sounds of different length only the valid segments are computed: they
are taken straight into the order of a `PackedSequence`, so that the CNN's output is the LSTM's
packed input, and batch statistics are those of real segments without a mask.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.nn.utils.rnn import PackedSequence

# Convolutions and the batch norms that follow them.
_FOLDED = {"conv1": "bn1", "conv2": "bn2", "downsample_conv": "downsample_bn"}


@dataclasses.dataclass(frozen=True)
class Packing:
    """Where the steps of B sequences of different lengths lie when packed.

    Attributes:
      index: int64 [P], b * N + n of every packed step, on the device.
      batch_sizes: int64 [longest], on the CPU: sequences that have each step.
      sorted, unsorted: int64 [sequences], to longest-first order and back.
      present: int64 [sequences], the rows that have any step; None where all B do.
      rows: B.
      equal: whether all sequences are equally long, and the packed steps are [longest, B].
    """

    index: Tensor
    batch_sizes: Tensor
    sorted: Tensor
    unsorted: Tensor
    present: Tensor | None
    rows: int
    equal: bool

    @classmethod
    def of_lengths(cls, lengths: np.ndarray, steps: int, device: torch.device) -> "Packing":
        """Returns the packing of int [B] lengths, known on the host, in a buffer of `steps`."""
        present = np.flatnonzero(lengths)
        order = np.argsort(-lengths[present], kind="stable")
        longest_first = present[order]
        ordered = lengths[longest_first]
        sizes = [int((ordered > step).sum()) for step in range(int(ordered[0]))]
        index = np.concatenate([longest_first[:n] * steps + step for step, n in enumerate(sizes)])

        def on_device(x: np.ndarray) -> Tensor:
            tensor = torch.from_numpy(np.ascontiguousarray(x, np.int64))
            if device.type != "cuda":
                return tensor
            return tensor.pin_memory().to(device, non_blocking=True)

        return cls(
            index=on_device(index),
            batch_sizes=torch.tensor(sizes),
            sorted=on_device(order),
            unsorted=on_device(np.argsort(order)),
            present=None if len(present) == len(lengths) else on_device(present),
            rows=len(lengths),
            equal=len(set(lengths.tolist())) == 1,
        )


class BasicBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), then relu."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample_conv = self.downsample_bn = None
        if stride > 1 or inner != outer:
            self.downsample_conv = nn.Conv2d(inner, outer, 1, stride, bias=False)
            self.downsample_bn = nn.BatchNorm2d(outer)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [A, inner, h, w] to [A, outer, h / stride, w / stride]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.downsample_conv is not None:
            x = self.downsample_bn(self.downsample_conv(x))
        return F.relu(y + x, inplace=True)


class ResNet(nn.Module):
    """ResNet of basic blocks without a classifier: images to pooled features."""

    def __init__(self, channels: int, width: int, stage_sizes: Sequence[int], stem: str) -> None:
        super().__init__()
        size, stride = (7, 2) if stem == "conv7" else (3, 2)
        self.conv1 = nn.Conv2d(channels, width, size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pools = stem == "conv7"
        self.names, inner = [], width
        for stage, count in enumerate(stage_sizes):
            for block in range(count):
                outer = width * 2**stage
                name = f"layer{stage + 1}_{block}"
                self.add_module(name, BasicBlock(inner, outer, 2 if stage and not block else 1))
                self.names.append(name)
                inner = outer

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [A, C, H, W], channels-last in memory, to features float32 [A, D]."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.pools:
            x = F.max_pool2d(x, 3, 2, 1)
        for name in self.names:
            x = getattr(self, name)(x)
        return x.mean((2, 3), dtype=torch.float32)

    def fold_norms(self) -> None:
        """Makes batch norms part of the convolutions before them, for good; in evaluation."""
        for module in (self, *self.children()):
            for conv, norm in _FOLDED.items():
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                    setattr(module, conv, fused)
                    setattr(module, norm, nn.Identity())


def feature_norm(features: int) -> nn.BatchNorm1d:
    """Returns the thesis' FeatureNorm: batch normalisation without parameters."""
    return nn.BatchNorm1d(features, affine=False)


class Branch(nn.Module):
    """Features of one modality, normalised: FeatureNorm(LSTM(ResNet(x)))."""

    def __init__(self, channels: int, fields: dict[str, Any]) -> None:
        super().__init__()
        stage_sizes = fields.get("stage_sizes", (2, 2, 2, 2))
        width, features = fields.get("width", 64), fields.get("features", 512)
        for name, expected in (("cnn", "2d"), ("aggregator", "lstm")):
            if fields.get(name, expected) != expected:
                raise ValueError(f"{name} is {fields[name]!r}; the baseline has {expected!r} alone")
        self.cnn = ResNet(channels, width, stage_sizes, fields.get("stem", "conv7"))
        self.aggregator = nn.LSTM(width * 2 ** (len(stage_sizes) - 1), features)
        # aver_jax has one bias vector, and so have torch's two when one of them stays 0.
        nn.init.zeros_(self.aggregator.bias_hh_l0).requires_grad_(False)
        self.norm = feature_norm(features)

    def forward(self, x: Tensor, packing: Packing | None) -> Tensor:
        """Computes f^, float32 [B, D], 0 where a sequence has no step.

        Args:
          x: of all steps [B, T, C, h, w], or packed [P, C, h, w].
          packing: of the packed steps; None where there is nothing to pack.
        """
        if packing is None:
            batch, steps = x.shape[:2]
            pooled = self.cnn(x.flatten(0, 1)).view(batch, steps, -1).transpose(0, 1)
        else:
            pooled = self.cnn(x)
            if packing.equal:
                pooled = pooled.view(-1, packing.rows, pooled.shape[-1])
            else:
                pooled = PackedSequence(
                    pooled, packing.batch_sizes, packing.sorted, packing.unsorted
                )
        features = self.norm(self.aggregator(pooled)[1][0][0].float())
        if packing is None or packing.present is None:
            return features
        rows = features.new_zeros(packing.rows, features.shape[1])
        return rows.index_copy(0, packing.present, features)


class Scoring(nn.Module):
    """Linear -> ReLU -> FeatureNorm -> Linear (eq. 25)."""

    def __init__(self, features: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, hidden)
        self.norm = feature_norm(hidden)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, g: Tensor) -> Tensor:
        """Maps g [B, D] to logits [B, C]."""
        return self.head(self.norm(F.relu(self.dense(g))))


class ResNetLstm(nn.Module):
    """Emotion from one modality alone."""

    def __init__(self, fields: dict[str, Any], num_classes: int) -> None:
        super().__init__()
        self.modality = fields.get("modality", "video")
        self.add_module(self.modality, Branch(3 if self.modality == "video" else 1, fields))
        features, hidden = fields.get("features", 512), fields.get("scoring_hidden", 256)
        self.add_module(f"{self.modality}_scoring", Scoring(features, hidden, num_classes))

    def forward(
        self, frames: Tensor | None, segments: Tensor | None, packing: Packing | None
    ) -> tuple[Tensor, ...]:
        """Returns the logits, float32 [B, C], as a tuple of one.

        Args:
          frames: [B, T, 3, H, W], channels-last in memory; None for a model of sound.
          segments: packed [P, 1, F, W]; None for a model of frames.
          packing: of the segments.
        """
        x = frames if self.modality == "video" else segments
        features = getattr(self, self.modality)(x, packing)
        with torch.autocast(features.device.type, enabled=False):
            return (getattr(self, f"{self.modality}_scoring")(features),)
