"""TimeSformer with divided space-time attention, tuned for PyTorch (Bertasius et al. 2021).

Tokens run with space fastest, [cls, then 1 + t*N + p], where the official code has time fastest:
spatial attention, whose maps are the larger ones, then reads and writes tokens as they lie, and
temporal attention is left with small problems that are strided views of the same projection.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPORAL = ("matmul", "sdpa", "products")
"""How the attention over T frames, a few, is computed outside of relevance.

matmul: batched T x T products and an explicit softmax. sdpa: scaled_dot_product_attention on views
without a copy, of three projections instead of one. products: sums of elementwise products, which
torch.compile turns into two kernels (without it, it is slow and large).
"""


def network(fields: dict[str, Any], num_classes: int, temporal: str = "matmul") -> "TimeSformer":
    """Returns the model for the fields of aver_jax's, of which those of its compilation are idle.

    Raises:
      ValueError: another attention than the divided one.
    """
    attention = fields.get("attention", "divided_space_time")
    if attention != "divided_space_time":
        raise ValueError(f"attention is {attention!r}; the baseline has divided_space_time alone")
    return TimeSformer(
        num_classes=num_classes,
        image_size=fields["image_size"],
        num_frames=fields["num_frames"],
        patch_size=fields.get("patch_size", 16),
        width=fields["width"],
        depth=fields["depth"],
        num_heads=fields["num_heads"],
        mlp_ratio=fields.get("mlp_ratio", 4),
        temporal=temporal,
    )


class LayerNorm(nn.LayerNorm):
    """Layer norm (epsilon 1e-6) that gives back its input's dtype, with float32 statistics.

    Autocast alone would return float32 and keep the whole residual stream so.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [..., D] to [..., D]."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class Attention(nn.Module):
    """Multi-head self-attention; `qkv` is [q|k|v], head-major."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        # What passes here is the explicit softmax: the place for hooks.
        self.map = nn.Identity()

    def space(self, x: Tensor, probe: Tensor | None, explicit: bool) -> tuple[Tensor, Tensor]:
        """Maps x [A, S, D] to [A, S, D], attending over axis 1; and the maps [A, h, S, S]."""
        rows, length, width = x.shape
        qkv = self.qkv(x).view(rows, length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if explicit:
            out, weights = self._explicit(q, k, v, probe)
        else:
            out, weights = F.scaled_dot_product_attention(q, k, v), None
        return self.proj(out.transpose(1, 2).reshape(rows, length, width)), weights

    def time(
        self, x: Tensor, kind: str, probe: Tensor | None, explicit: bool
    ) -> tuple[Tensor, Tensor]:
        """Maps x [B, T, N, D] to [B, T, N, D], attending over axis 1; the maps [B, N, h, T, T]."""
        batch, frames, positions, width = x.shape
        heads, weights = self.num_heads, None
        if explicit or kind == "matmul":
            qkv = self.qkv(x).view(batch, frames, positions, 3, heads, -1)
            q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).unbind(0)
            out, weights = self._explicit(q, k, v, probe)
            # A map that a compiled block returned, it would have to write.
            out, weights = out.permute(0, 3, 1, 2, 4), weights if explicit else None
        elif kind == "sdpa":
            parts = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
            # Positions and heads are one batch axis of each, which they are not of `qkv`.
            q, k, v = (
                F.linear(x, weight, bias).view(batch, frames, positions * heads, -1).transpose(1, 2)
                for weight, bias in parts
            )
            out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        else:
            q, k, v = self.qkv(x).view(batch, frames, positions, 3, heads, -1).unbind(3)
            scores = (q[:, :, None] * k[:, None]).sum(-1, dtype=torch.float32)
            shares = (scores * q.shape[-1] ** -0.5).softmax(2).to(v.dtype)
            out = (shares[..., None] * v[:, None]).sum(2)
        return self.proj(out.reshape(batch, frames, positions, width)), weights

    def _explicit(
        self, q: Tensor, k: Tensor, v: Tensor, probe: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        # Scaling q touches fewer numbers than scaling the scores.
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
        if probe is not None:
            weights = weights + probe
        weights = self.map(weights)
        return weights @ v, weights


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [..., D] to [..., D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Temporal attention, spatial attention, MLP, each with a residual."""

    def __init__(self, width: int, num_heads: int, hidden: int, frames: int, temporal: str) -> None:
        super().__init__()
        self.frames, self.temporal = frames, temporal
        self.temporal_norm1 = LayerNorm(width)
        self.temporal_attn = Attention(width, num_heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, hidden)

    def forward(
        self,
        x: Tensor,
        explicit: bool = False,
        time_probe: Tensor | None = None,
        space_probe: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Maps tokens [B, 1+T*N, D] to tokens.

        Args:
          x: the tokens.
          explicit: whether softmaxes are computed and returned.
          time_probe, space_probe: added to the softmaxes, of their shapes; or None.

        Returns:
          The tokens, and if explicit the maps over time [B, N, h, T, T] and over space
          [B*T, h, 1+N, 1+N], or None and None.
        """
        batch, tokens, width = x.shape
        frames, positions = self.frames, (tokens - 1) // self.frames
        cls, patches = x[:, :1], x[:, 1:]
        normed = self.temporal_norm1(patches).view(batch, frames, positions, width)
        out, time = self.temporal_attn.time(normed, self.temporal, time_probe, explicit)
        patches = patches.view(batch, frames, positions, width) + self.temporal_fc(out)

        # Every frame attends over its own patches and a copy of the clip's cls token.
        copies = cls[:, None].expand(batch, frames, 1, width)
        spatial = torch.cat([copies, patches], dim=2).view(-1, 1 + positions, width)
        out, space = self.attn.space(self.norm1(spatial), space_probe, explicit)
        out = out.view(batch, frames, 1 + positions, width)
        cls = cls + out[:, :, 0].mean(1, keepdim=True)
        patches = (patches + out[:, :, 1:]).view(batch, -1, width)
        x = torch.cat([cls, patches], dim=1)
        return x + self.mlp(self.norm2(x)), time, space


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel, as a linear layer over unfolded patches."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(3 * patch_size**2, width)

    def forward(self, frames: Tensor) -> Tensor:
        """Maps frames [B, T, H, W, 3] to patches [B, T, N, D], N row by row."""
        size = self.patch_size
        batch, length, height, width, _ = frames.shape
        pixels = frames.view(batch, length, height // size, size, width // size, size, 3)
        pixels = pixels.transpose(3, 4).reshape(batch, length, -1, 3 * size**2)
        return self.proj(pixels)


class TimeSformer(nn.Module):
    """Video transformer that classifies a clip from its cls token; no dropout of any kind."""

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        num_frames: int,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        temporal: str = "matmul",
    ) -> None:
        super().__init__()
        self.grid = image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width))
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames, width))
        hidden = round(width * mlp_ratio)
        self.blocks = nn.ModuleList(
            [Block(width, num_heads, hidden, num_frames, temporal) for _ in range(depth)]
        )
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def embedded(self, frames: Tensor) -> Tensor:
        """Maps frames [B, T, H, W, 3] to tokens [B, 1+T*N, D]."""
        patches = self.patch_embed(frames)
        offsets = self.pos_embed[:, None, 1:] + self.time_embed[:, :, None]
        patches = (patches + offsets.to(patches.dtype)).flatten(1, 2)
        cls = (self.cls_token + self.pos_embed[:, :1]).to(patches.dtype)
        return torch.cat([cls.expand(patches.shape[0], -1, -1), patches], dim=1)

    def classified(self, tokens: Tensor) -> Tensor:
        """Maps tokens to logits float32 [B, C]."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.head(self.norm(tokens[:, 0].float()))

    def forward(self, frames: Tensor) -> Tensor:
        """Maps normalised frames float [B, T, H, W, 3] to logits float32 [B, C]."""
        x = self.embedded(frames)
        for block in self.blocks:
            x = block(x)[0]
        return self.classified(x)
