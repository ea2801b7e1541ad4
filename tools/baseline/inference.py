"""Forward passes without gradients, from a host batch to logits on the host."""

import torch
from torch import Tensor, nn

from tools.baseline.batches import DeviceBatch, HostBatch
from tools.baseline.graphs import replayed
from tools.baseline.models.resnet_lstm import ResNet
from tools.baseline.models.timesformer import TimeSformer


class Inference:
    """A model that classifies one host batch."""

    def __init__(self, model: nn.Module, batch: HostBatch) -> None:
        """Takes over a model.

        Args:
          model: a device batch -> tuple of logits, the model's own first.
          batch: every call copies it to the device anew.
        """
        self.model, self.batch = model.eval().requires_grad_(False), batch
        self._from_host = lambda: self.logits_of(self.batch.on_device())

    def logits_of(self, batch: DeviceBatch) -> Tensor:
        """Returns logits float32 [B, C] of a batch on the device."""
        with torch.inference_mode():
            return self.model(batch)[0]

    def call(self) -> Tensor:
        """Returns the logits of the host batch, on the host."""
        return self._from_host().cpu()

    def use_graph(self) -> None:
        """Makes `call` the replay of a CUDA graph; raises RuntimeError where there can be none."""
        self._from_host = replayed(self.logits_of, self.batch)


def frozen(network: nn.Module, half: bool) -> nn.Module:
    """Returns a network, in evaluation, with what weights that stay allow done once.

    Batch norms after convolutions become part of them. Weights of a transformer's blocks are
    bfloat16 where autocast would convert them in every call.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, ResNet):
            module.fold_norms()
    if half and isinstance(network, TimeSformer):
        network.blocks.to(torch.bfloat16)
        network.patch_embed.to(torch.bfloat16)
    return network
