"""transformers' own TimeSformer, as its users run it: eager, autocast to bfloat16 on a GPU."""

import torch
from torch import Tensor, nn
from transformers import TimesformerConfig, TimesformerForVideoClassification

from tools.baseline import weights
from tools.baseline.batches import DeviceBatch
from tools.baseline.exchange import Exchange
from tools.baseline.frontend import normalized


class TransformersClassifier(nn.Module):
    """Logits of a batch of integers; attributes as of `classifier.Classifier`.

    Its configuration drops nothing by default.
    """

    def __init__(self, exchange: Exchange, device: torch.device) -> None:
        super().__init__()
        fields = exchange.model
        config = TimesformerConfig(
            image_size=fields["image_size"],
            patch_size=fields.get("patch_size", 16),
            num_frames=fields["num_frames"],
            hidden_size=fields["width"],
            num_hidden_layers=fields["depth"],
            num_attention_heads=fields["num_heads"],
            intermediate_size=round(fields["width"] * fields.get("mlp_ratio", 4)),
            attention_type=fields.get("attention", "divided_space_time"),
            num_labels=exchange.settings["num_classes"],
        )
        self.frontend, self.half = exchange.settings["frontend"], exchange.half
        self.network = TimesformerForVideoClassification(config)
        self.state = weights.transformers_state(exchange.variables)
        weights.load(self.network, self.state)
        self.to(device)

    def forward(self, batch: DeviceBatch) -> tuple[Tensor, ...]:
        """Return logits float32 [B, C], as a tuple of one."""
        frames = normalized(batch.frames, self.frontend["normalization"])
        with torch.autocast(batch.label.device.type, torch.bfloat16, enabled=self.half):
            logits = self.network(pixel_values=frames.permute(0, 1, 4, 2, 3)).logits
        return (logits.float(),)
