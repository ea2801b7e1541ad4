"""The CAM family on transformers' TimeSformer by torch autograd and loops over clips, in float64.

Nothing here is shared with `aver_jax`. `tests/parity/test_relevance.py` compares with it.
"""

import numpy as np
import torch
from transformers import TimesformerForVideoClassification

METHODS = ("grad_cam", "grad_cam_plus_plus", "eigen_cam")


def relevance(
    model: TimesformerForVideoClassification, frames: np.ndarray, target: np.ndarray, path: str
) -> dict[str, np.ndarray]:
    """Returns maps [B,T,h,w] by method, of the last layer's first norm.

    Args:
      model: with divided or joint attention; made float64 here.
      frames: float [B,T,H,W,3].
      target: class indices [B].
      path: "space_time": weights of a clip; "spatial": of each frame.
    """
    model = model.double().eval()
    batch, length, height, width, _ = frames.shape
    grid = (height // model.config.patch_size, width // model.config.patch_size)
    kept = []

    def keep(module, arguments, output):
        output.retain_grad()
        kept.append(output)

    hook = model.timesformer.encoder.layer[-1].layernorm_before.register_forward_hook(keep)
    pixels = torch.tensor(frames, dtype=torch.float64).permute(0, 1, 4, 2, 3).contiguous()
    logits = model(pixels).logits
    hook.remove()
    model.zero_grad()
    logits[torch.arange(batch), torch.tensor(target)].sum().backward()

    def by_clip(tokens: torch.Tensor) -> torch.Tensor:
        patches = tokens[:, 1:].detach()
        if model.config.attention_type == "divided_space_time":
            return patches.reshape(batch, length, *grid, -1)
        # Joint tokens run with time fastest.
        return patches.reshape(batch, *grid, length, -1).permute(0, 3, 1, 2, 4)

    maps, gradient = by_clip(kept[0]), by_clip(kept[0].grad)
    groups = [slice(None)] if path == "space_time" else [slice(t, t + 1) for t in range(length)]
    found = {}
    for method in METHODS:
        clips = []
        for a, g in zip(maps, gradient, strict=True):
            parts = [_cam(method, a[steps], g[steps]) for steps in groups]
            clips.append(torch.cat(parts).clamp(min=0).numpy())
        found[method] = np.stack(clips)
    return found


def _cam(method: str, a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Returns the map [T,h,w] of activations and gradients [T,h,w,D]."""
    places = (0, 1, 2)
    if method == "eigen_cam":
        rows = a.reshape(-1, a.shape[-1])
        vector = torch.linalg.svd(rows, full_matrices=False)[2][0]
        cam = (rows @ vector).reshape(a.shape[:-1])
        return -cam if cam.max() < -cam.min() else cam
    if method == "grad_cam":
        weights = g.mean(places)
    else:
        share = g**2 / (2 * g**2 + a.sum(places) * g**3 + 1e-6)
        weights = (share * g.clamp(min=0)).sum(places)
    return (a * weights).sum(-1)
