"""MRPN, the fusion network N2 of video and sound, tuned for PyTorch (Chang 2021, 5.2)."""

from typing import Any

import torch
from torch import Tensor, nn

from tools.baseline.models.resnet_lstm import Branch, Packing, Scoring, feature_norm


class ResPerceptron(nn.Module):
    """f^ + FeatureNorm(sigmoid(Linear(f^))) (eq. 29)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, features)
        self.norm = feature_norm(features)

    def forward(self, f: Tensor) -> Tensor:
        """Maps [B, D] to [B, D]."""
        return f + self.norm(torch.sigmoid(self.dense(f)))


class SideHead(nn.Module):
    """Logits of one branch (eqs 31, 32)."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, num_classes)

    def forward(self, g: Tensor) -> Tensor:
        """Maps [B, D] to [B, C]."""
        return self.head(g)


class FusionComponent(nn.Module):
    """Concatenate -> FeatureNorm -> Scoring (eqs 26, 27)."""

    def __init__(self, features: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.norm = feature_norm(features)
        self.scoring = Scoring(features, hidden, num_classes)

    def forward(self, g: list[Tensor]) -> Tensor:
        """Maps features of the modalities, [B, D] each, to logits [B, C]."""
        return self.scoring(self.norm(torch.cat(g, dim=1)))


class Mrpn(nn.Module):
    """A branch, a residual perceptron and a side head per modality, and the fusion of both.

    Raises ValueError for another network than "n2".
    """

    modalities = ("video", "audio")

    def __init__(self, fields: dict[str, Any], num_classes: int) -> None:
        super().__init__()
        if fields.get("network", "n2") != "n2":
            raise ValueError(f"network is {fields['network']!r}; the baseline has 'n2' alone")
        features, hidden = fields.get("features", 512), fields.get("scoring_hidden", 256)
        for name in self.modalities:
            self.add_module(name, Branch(3 if name == "video" else 1, fields))
            self.add_module(f"{name}_residual", ResPerceptron(features))
            self.add_module(f"{name}_side", SideHead(features, num_classes))
        self.fusion = FusionComponent(2 * features, hidden, num_classes)

    def forward(self, frames: Tensor, segments: Tensor, packing: Packing) -> tuple[Tensor, ...]:
        """Returns logits float32 [B, C]: the fused ones, and those of video and of sound.

        Args:
          frames: [B, T, 3, H, W], channels-last in memory.
          segments: packed [P, 1, F, W].
          packing: of the segments.
        """
        f = {"video": self.video(frames, None), "audio": self.audio(segments, packing)}
        with torch.autocast(frames.device.type, enabled=False):
            g = [getattr(self, f"{name}_residual")(f[name]) for name in self.modalities]
            sides = [
                getattr(self, f"{name}_side")(x) for name, x in zip(self.modalities, g, strict=True)
            ]
            return self.fusion(g), *sides
