"""TIBAV relevance of TimeSformer over space and time, batched and as the hook-based tools do it.

Per attention the map is mean over heads of (gradient x softmax)^+ (Chefer et al., ICCV 2021,
eq. 5), and relevance goes from the last layer to the first as r <- r (I + M). Only its cls row is
needed, a vector over the tokens, so that no matrix over all tokens is built.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tools.baseline.models.timesformer import TimeSformer


class Relevance(NamedTuple):
    """maps: float32 [B,T,h,w], 0..1 over a clip; logits [B,C]; target: int64 [B]."""

    maps: Tensor
    logits: Tensor
    target: Tensor


def batched(
    network: TimeSformer,
    frames: Tensor,
    target: Tensor | None = None,
    half: bool = False,
    probes: bool = False,
) -> Relevance:
    """Explains a whole batch with one backward pass, from the clips' logits to the softmaxes.

    Clips do not interact, so the gradient of their summed logits is every clip's own.

    Args:
      network: in evaluation, its parameters without gradients, so that none is computed.
      frames: float32 [B, T, H, W, 3], normalised.
      target: int64 [B]; None explains the predicted classes.
      half: whether to compute in bfloat16.
      probes: differentiate with respect to zeros added to the softmaxes, which is what works where
        blocks are compiled: between two outputs of a compiled block no gradient flows.
    """
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=half):
        with torch.no_grad():
            tokens = network.embedded(frames)
        time, space, leaves = [], [], []
        x = tokens.requires_grad_()
        for block in network.blocks:
            added = _zeros(network, frames) if probes else (None, None)
            x, over_time, over_space = block(x, True, *added)
            time.append(over_time)
            space.append(over_space)
            leaves.extend(added if probes else (over_time, over_space))
    logits = network.classified(x)
    chosen = logits.argmax(1) if target is None else target
    gradients = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), leaves)
    return _explained(
        network,
        [x.detach() for x in time],
        [x.detach() for x in space],
        gradients[0::2],
        gradients[1::2],
        logits.detach(),
        chosen,
    )


class Hooked:
    """One clip at a time, with hooks that keep every softmax and its gradient."""

    def __init__(self, network: TimeSformer, half: bool = False) -> None:
        self.network, self.half = network.eval(), half
        self._time: list[Tensor] = []
        self._space: list[Tensor] = []
        # Filled by the backward pass, last layer first.
        self._time_gradients: list[Tensor] = []
        self._space_gradients: list[Tensor] = []
        for block in network.blocks:
            block.temporal_attn.map.register_forward_hook(
                _keeping(self._time, self._time_gradients)
            )
            block.attn.map.register_forward_hook(_keeping(self._space, self._space_gradients))

    def explain(self, frames: Tensor, target: Tensor | None = None) -> Relevance:
        """Explains one clip, float32 [1, T, H, W, 3]; `target` int64 [1]."""
        kept = (self._time, self._space, self._time_gradients, self._space_gradients)
        for tensors in kept:
            tensors.clear()
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.half):
            x = self.network.embedded(frames)
            for block in self.network.blocks:
                x = block(x, True)[0]
        logits = self.network.classified(x)
        chosen = logits.argmax(1) if target is None else target
        one_hot = torch.nn.functional.one_hot(chosen, logits.shape[1])
        self.network.zero_grad()
        (one_hot * logits).sum().backward()
        return _explained(
            self.network,
            [x.detach() for x in self._time],
            [x.detach() for x in self._space],
            self._time_gradients[::-1],
            self._space_gradients[::-1],
            logits.detach(),
            chosen,
        )


def _keeping(maps: list[Tensor], gradients: list[Tensor]):
    def hook(module, inputs, output):
        maps.append(output)
        output.register_hook(gradients.append)

    return hook


def _zeros(network: TimeSformer, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Returns zeros shaped as a block's softmaxes, which need no memory and get gradients."""
    (batch, length), positions = frames.shape[:2], network.grid**2
    heads = network.blocks[0].attn.num_heads
    shapes = (
        (batch, positions, heads, length, length),
        (batch * length, heads, 1 + positions, 1 + positions),
    )
    zero = frames.new_zeros(())
    return tuple(zero.expand(shape).requires_grad_() for shape in shapes)


@torch.no_grad()
def _explained(
    network: TimeSformer,
    time: Sequence[Tensor],
    space: Sequence[Tensor],
    time_gradients: Sequence[Tensor],
    space_gradients: Sequence[Tensor],
    logits: Tensor,
    target: Tensor,
) -> Relevance:
    batch, positions, _, frames, _ = time[0].shape
    cls = torch.ones(batch, device=logits.device)
    patches = torch.zeros(batch, frames, positions, device=logits.device)
    layers = zip(time, space, time_gradients, space_gradients, strict=True)
    for over_time, over_space, time_gradient, space_gradient in reversed(list(layers)):
        # The attention over space acts last in a block, so it comes first on the way back.
        fused = _fused(over_space, space_gradient).view(batch, frames, 1 + positions, -1)
        row = torch.cat([cls[:, None, None].expand(batch, frames, 1), patches], dim=2)
        moved = (row[:, :, None] @ fused)[:, :, 0]
        cls = cls + moved[:, :, 0].sum(1)
        patches = patches + moved[:, :, 1:]
        by_position = patches.transpose(1, 2)[:, :, None]
        moved = by_position @ _fused(over_time, time_gradient)
        patches = (by_position + moved)[:, :, 0].transpose(1, 2)
    raw = patches.unflatten(2, (network.grid, network.grid))
    low, high = raw.amin((1, 2, 3), keepdim=True), raw.amax((1, 2, 3), keepdim=True)
    # Differences below this are rounding; scaled up they would make a picture.
    varies = high - low > 1e-6 * high
    maps = torch.where(varies, (raw - low) / torch.where(varies, high - low, 1), 0)
    return Relevance(maps, logits, target)


def _fused(attention: Tensor, gradient: Tensor) -> Tensor:
    """Averages (gradient x attention)^+ over heads: [..., h, q, k] to float32 [..., q, k]."""
    return (gradient.float() * attention.float()).clamp_(min=0).mean(-3)
