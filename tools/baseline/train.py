"""The train step: loss, gradients, clipping and fused AdamW, from a host batch on."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.baseline.batches import DeviceBatch, HostBatch
from tools.baseline.graphs import replayed
from tools.baseline.models.weights import State, parameter_groups


class Training:
    """A model in training on one host batch."""

    def __init__(
        self,
        model: nn.Module,
        named: nn.Module,
        state: State,
        settings: dict[str, Any],
        batch: HostBatch,
    ) -> None:
        """Makes everything ready for the first step.

        Args:
          model: a device batch -> tuple of logits; their cross-entropies are added.
          named: the part of the model whose parameters have the names of `state`.
          state: the initial weights.
          settings: "optimizer" and "label_smoothing" of case.json.
          batch: what every step trains on; each step copies it to the device anew.
        """
        self.model, self.batch = model.train(), batch
        self._named, self._state = named, state
        self._smoothing = settings["label_smoothing"]
        rule = settings["optimizer"]
        self._clip_norm = rule["clip_norm"]
        self._parameters = [p for p in named.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameter_groups(named, state, rule["decayed"], rule["weight_decay"]),
            lr=rule["lr"],
            betas=(rule["b1"], rule["b2"]),
            eps=rule["eps"],
            fused=True,
            # Lets the step be part of a CUDA graph.
            capturable=batch.device.type == "cuda",
        )
        self._from_host = lambda: self.step_on(self.batch.on_device())

    def step_on(self, batch: DeviceBatch) -> Tensor:
        """Does one step on a batch that is on the device; returns its loss, float32 []."""
        logits = self.model(batch)
        loss = sum(F.cross_entropy(x, batch.label, label_smoothing=self._smoothing) for x in logits)
        loss.backward()
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def call(self) -> float:
        """Does one step from the host batch and waits for its loss."""
        return self._from_host().item()

    def use_graph(self) -> None:
        """Makes `call` the replay of a CUDA graph; raises RuntimeError where there can be none."""
        self._from_host = replayed(self.step_on, self.batch)

    def reset(self) -> None:
        """Goes back to the initial weights, in place."""
        tensors = self._named.state_dict()
        with torch.no_grad():
            for name, (_, value) in self._state.items():
                tensors[name].copy_(value)
            for of_parameter in self.optimizer.state.values():
                for value in of_parameter.values():
                    value.zero_()
