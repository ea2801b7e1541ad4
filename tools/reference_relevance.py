"""Relevance of transformers' TimeSformer by torch autograd and dense matrices, in float64.

Nothing here is shared with `aver_jax`: gradients come from `retain_grad` on the softmax inside
transformers' model, and every layer is a matrix over all tokens of the clip. It is what
`tests/parity/test_relevance.py` compares with, and it writes the files that let
`tests/relevance` check the same without torch. Run by hand, in the environment of `make parity`,
from the root of the repository: `python -m tools.reference_relevance --out tests/reference`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import TimesformerForVideoClassification

from tools.make_reference import ATTENTION_TYPES, noisy_model

METHODS = ("tibav", "rollout_grad", "rollout_min", "rollout_mean", "rollout_max")
PATHS = {
    "divided_space_time": ("space_time", "spatial"),
    "joint_space_time": ("space_time",),
    "space_only": ("spatial",),
}


def relevance(
    model: TimesformerForVideoClassification, frames: np.ndarray, target: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Returns raw maps [B,T,h,w] under "METHOD/PATH", and "logits" [B,C] and "target" [B].

    Args:
      model: made float64 here.
      frames: float [B,T,H,W,3].
      target: class indices [B]; None explains the predicted classes.
    """
    model = model.double().eval()
    attention = model.config.attention_type
    batch, length, height, width, _ = frames.shape
    grid = (height // model.config.patch_size, width // model.config.patch_size)
    space, time = [], []
    hooks = []
    for layer in model.timesformer.encoder.layer:
        hooks.append(layer.attention.attention.attn_drop.register_forward_hook(_retained(space)))
        if attention == "divided_space_time":
            dropout = layer.temporal_attention.attention.attn_drop
            hooks.append(dropout.register_forward_hook(_retained(time)))
    pixels = torch.tensor(frames, dtype=torch.float64).permute(0, 1, 4, 2, 3).contiguous()
    if attention == "space_only":
        # transformers classifies every frame on its own; the clip's cls token is their mean.
        backbone = model.timesformer
        cls = backbone.encoder(backbone.embeddings(pixels))[0][:, 0]
        logits = model.classifier(backbone.layernorm(cls.reshape(batch, length, -1).mean(1)))
    else:
        logits = model(pixels).logits
    for hook in hooks:
        hook.remove()
    chosen = logits.argmax(1) if target is None else torch.tensor(target, dtype=torch.int64)
    model.zero_grad()
    logits[torch.arange(batch), chosen].sum().backward()

    found = {"logits": logits.detach().numpy(), "target": chosen.numpy()}
    for path in PATHS[attention]:
        for method in METHODS:
            fused_space = [_fused(method, a, a.grad) for a in space]
            fused_time = [_fused(method, a, a.grad) for a in time]
            maps = [
                _clip_map(method, path, attention, fused_space, fused_time, b, length, grid)
                for b in range(batch)
            ]
            found[f"{method}/{path}"] = torch.stack(maps).numpy()
    return found


def _retained(kept: list):
    def hook(module, inputs, output):
        # An identity in evaluation may return its input; a view keeps a gradient of its own.
        output = output * 1
        output.retain_grad()
        kept.append(output)
        return output

    return hook


def _fused(method: str, attention: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Fuses heads: [A,h,q,k] to [A,q,k]."""
    attention = attention.detach()
    if method == "tibav":
        return (gradient * attention).clamp(min=0).mean(1)
    if method == "rollout_grad":
        return (gradient * attention).mean(1).clamp(min=0)
    if method == "rollout_mean":
        return attention.mean(1)
    return attention.amin(1) if method == "rollout_min" else attention.amax(1)


def _clip_map(method, path, attention, space, time, clip, length, grid):
    """Returns [T,h,w] of one clip."""
    patches = grid[0] * grid[1]
    if path == "spatial":
        rows = []
        for frame in range(length):
            layers = [layer[clip * length + frame] for layer in space]
            rows.append(_propagated(method, layers)[0, 1:].reshape(grid))
        return torch.stack(rows)
    if attention == "joint_space_time":
        layers = [layer[clip] for layer in space]
    else:
        layers = []
        for over_time, over_space in zip(time, space, strict=True):
            of_clip = slice(clip * patches, (clip + 1) * patches)
            layers.append(_time_matrix(method, over_time[of_clip], length))
            of_clip = slice(clip * length, (clip + 1) * length)
            layers.append(_space_matrix(method, over_space[of_clip], patches))
    row = _propagated(method, layers)[0, 1:]
    return row.reshape(*grid, length).permute(2, 0, 1)


def _time_matrix(method, attention, length):
    """Returns all tokens by all tokens from [N,T,T]; tokens are cls, then 1 + p*T + t."""
    blocks = torch.block_diag(*attention)
    cls = torch.ones(1, 1) if method.startswith("rollout") else torch.zeros(1, 1)
    return torch.block_diag(cls.double(), blocks)


def _space_matrix(method, attention, patches):
    """Returns all tokens by all tokens from [T,1+N,1+N]; the frames' cls rows fall into one."""
    length = len(attention)
    size = 1 + patches * length
    full = torch.zeros(size, size, dtype=torch.float64)
    for frame in range(length):
        # [size, 1+N]: where this frame's tokens are among the clip's.
        place = torch.zeros(size, 1 + patches, dtype=torch.float64)
        place[0, 0] = 1
        place[1 + torch.arange(patches) * length + frame, 1 + torch.arange(patches)] = 1
        full += place @ attention[frame] @ place.T
    if method in ("rollout_min", "rollout_mean", "rollout_max"):
        full[0] /= length
    return full


def _propagated(method: str, layers: list[torch.Tensor]) -> torch.Tensor:
    """Returns the relevance of all tokens for all tokens, after `layers` in the order they act."""
    identity = torch.eye(len(layers[0]), dtype=torch.float64)
    total = identity
    for layer in layers:
        if method == "tibav":
            total = total + layer @ total
        else:
            mixed = layer + identity
            total = (mixed / mixed.sum(dim=1, keepdim=True)) @ total
    return total


def main() -> None:
    """Writes one npz file for every attention type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the .npz files")
    args = parser.parse_args()
    frames = np.random.default_rng(1).normal(size=(3, 3, 8, 8, 3)).astype(np.float16)
    for attention in ATTENTION_TYPES:
        model = noisy_model(
            attention, width=16, heads=2, hidden=32, image_size=8, patch_size=4, num_classes=5
        )
        content = {"frames": frames}
        for name, parameter in model.named_parameters():
            content[f"weight/{name}"] = parameter.detach().numpy().astype(np.float16)
        content |= relevance(model, frames.astype(np.float64))
        path = args.out / f"relevance_{attention}.npz"
        np.savez_compressed(path, **content)
        print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
