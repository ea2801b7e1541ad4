"""transformers' own TimeSformer, as its users run it: eager, autocast to bfloat16 on a GPU."""

import torch
from torch import Tensor, nn
from transformers import TimesformerConfig, TimesformerForVideoClassification

from aver_jax.bench.worker.case_files import CaseFiles
from tools.baseline.batches import DeviceBatch
from tools.baseline.frontend import normalized
from tools.baseline.models import weights


class TransformersClassifier(nn.Module):
    """Logits of a batch of integers; attributes as of `classifier.Classifier`.

    Its configuration drops nothing by default.
    """

    def __init__(self, files: CaseFiles, device: torch.device) -> None:
        super().__init__()
        fields = files.model
        config = TimesformerConfig(
            image_size=fields["image_size"],
            patch_size=fields.get("patch_size", 16),
            num_frames=fields["num_frames"],
            hidden_size=fields["width"],
            num_hidden_layers=fields["depth"],
            num_attention_heads=fields["num_heads"],
            intermediate_size=round(fields["width"] * fields.get("mlp_ratio", 4)),
            attention_type=fields.get("attention", "divided_space_time"),
            num_labels=files.settings["num_classes"],
        )
        self.frontend, self.half = files.settings["frontend"], files.half
        self.network = TimesformerForVideoClassification(config)
        self.state = weights.transformers_state(files.variables)
        weights.load(self.network, self.state)
        self.to(device)

    def forward(self, batch: DeviceBatch) -> tuple[Tensor, ...]:
        """Returns logits float32 [B, C], as a tuple of one."""
        frames = normalized(batch.frames, self.frontend["normalization"])
        with torch.autocast(batch.label.device.type, torch.bfloat16, enabled=self.half):
            logits = self.network(pixel_values=frames.permute(0, 1, 4, 2, 3)).logits
        return (logits.float(),)
