"""Augmentation of frames on the device, a whole batch at a time, alike for all frames of a clip.

What aver_jax does: one bilinear resampling for flip, crop and affine transform (edge pixels repeat
outside), then blur, contrast and noise.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Factors(NamedTuple):
    """The random factors of B clips."""

    matrix: Tensor  # float32 [B,2,3]: output pixel (x, y, 1) -> source pixel (x, y)
    sigma: Tensor  # float32 [B]: of the blur, in pixels; 0 leaves the frames sharp
    contrast: Tensor  # float32 [B]


def random_factors(
    amounts: Mapping[str, Any], clips: int, height: int, width: int, device: torch.device
) -> Factors:
    """Returns factors drawn for some clips; `amounts` are all of aver_jax's `augment.OFF`."""
    draws = iter(torch.rand(13, clips, device=device).unbind(0))

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * next(draws)

    mirror = torch.where(uniform(0, 1) < amounts["flip"], -1.0, 1.0)
    cut_x, cut_y = uniform(0, amounts["crop"]), uniform(0, amounts["crop"])
    window_x, window_y = uniform(-0.5, 0.5) * cut_x, uniform(-0.5, 0.5) * cut_y
    scale = uniform(*amounts["scale"])
    shift_x = uniform(-amounts["translate"], amounts["translate"])
    shift_y = uniform(-amounts["translate"], amounts["translate"])
    angle = uniform(-amounts["rotate"], amounts["rotate"]) * (math.pi / 180)
    slant = (uniform(-amounts["shear"], amounts["shear"]) * (math.pi / 180)).tan()
    blurred = uniform(0, 1) < amounts["blur"]
    sigma = torch.where(blurred, uniform(0, amounts["blur_sigma"]), 0.0)
    contrast = uniform(*amounts["contrast"])

    # A point goes back through translate, rotate, shear and scale, crop and mirror, about the
    # centre: the linear part, and where the output's centre comes from.
    cos, sin = angle.cos() / scale, angle.sin() / scale
    keep_x, keep_y = mirror * (1 - cut_x), 1 - cut_y
    linear = [
        [keep_x * (cos + slant * sin), keep_x * (sin - slant * cos)],
        [-keep_y * sin, keep_y * cos],
    ]
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    offset = [mirror * window_x * width + centre_x, window_y * height + centre_y]
    back_x, back_y = -shift_x * width - centre_x, -shift_y * height - centre_y
    rows = [
        torch.stack([a, b, a * back_x + b * back_y + c], dim=1)
        for (a, b), c in zip(linear, offset, strict=True)
    ]
    return Factors(torch.stack(rows, dim=1), sigma, contrast)


def augmented(frames: Tensor, factors: Factors, amounts: Mapping[str, Any]) -> Tensor:
    """Returns uint8 frames [B, T, H, W, 3] augmented: float32, in 0..255.

    Noise is drawn here, anew for every value.

    Args:
      frames: RGB.
      factors: of the B clips.
      amounts: what is off is not computed.
    """
    batch, length, height, width, _ = frames.shape
    # Colours and frames of a clip are its planes, read at the same places.
    planes = frames.permute(0, 1, 4, 2, 3).float().reshape(batch, length * 3, height, width)
    planes = _resampled(planes, factors.matrix)
    if amounts["blur"] and amounts["blur_sigma"]:
        planes = _blurred(planes, factors.sigma, math.ceil(4 * amounts["blur_sigma"]))
    if tuple(amounts["contrast"]) != (1.0, 1.0):
        contrast = factors.contrast[:, None, None, None]
        planes = (contrast * (planes - 128) + 128).clamp(0, 255)
    if amounts["noise"]:
        planes = (planes + amounts["noise"] * torch.randn_like(planes)).clamp(0, 255)
    return planes.view(batch, length, 3, height, width).permute(0, 1, 3, 4, 2)


def _resampled(planes: Tensor, matrix: Tensor) -> Tensor:
    height, width = planes.shape[2:]
    x = torch.arange(width, device=planes.device, dtype=torch.float32)
    y = torch.arange(height, device=planes.device, dtype=torch.float32)[:, None]

    def source(row: int) -> Tensor:
        a, b, c = (matrix[:, row, i, None, None] for i in range(3))
        return a * x + b * y + c

    # Pixels to grid_sample's -1..1, edge centre to edge centre.
    grid = torch.stack([source(0) * (2 / (width - 1)), source(1) * (2 / (height - 1))], dim=-1) - 1
    return F.grid_sample(planes, grid, "bilinear", padding_mode="border", align_corners=True)


def _blurred(planes: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Returns planes [B, P, H, W] under each clip's Gaussian, edge pixels repeated outside."""
    offsets = torch.arange(-radius, radius + 1, device=planes.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    height, width = planes.shape[2:]
    padded = F.pad(planes, (radius,) * 4, mode="replicate")
    shares = weights[:, :, None, None, None].unbind(1)
    rows = sum(share * padded[:, :, i : i + height] for i, share in enumerate(shares))
    return sum(share * rows[..., i : i + width] for i, share in enumerate(shares))
