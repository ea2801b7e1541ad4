"""ResNet (He et al. 2016) of basic blocks, for images and, as a comparison, for volumes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.norm import BatchNorm

STEMS = ("conv7", "conv3")

# As torchvision's: deviation sqrt(2 / fan_out).
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(features: int, size: int, strides: tuple[int, ...], dtype: Any, name: str) -> nn.Conv:
    # Padding is given, because "SAME" at stride 2 pads on the other side than torch.
    dims = len(strides)
    return nn.Conv(
        features,
        (size,) * dims,
        strides,
        padding=[(size // 2, size // 2)] * dims,
        use_bias=False,
        dtype=dtype,
        kernel_init=_he_normal,
        name=name,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; names are torchvision's."""

    features: int
    strides: tuple[int, ...]
    axis_name: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Return the block's output; x is [N, ..., D]."""

        def norm(name: str) -> BatchNorm:
            return BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)

        ones = (1,) * len(self.strides)
        y = _conv(self.features, 3, self.strides, self.dtype, "conv1")(x)
        y = nn.relu(norm("bn1")(y, train, mask))
        y = _conv(self.features, 3, ones, self.dtype, "conv2")(y)
        y = norm("bn2")(y, train, mask)
        if x.shape[-1] != self.features or self.strides != ones:
            x = _conv(self.features, 1, self.strides, self.dtype, "downsample_conv")(x)
            x = norm("downsample_bn")(x, train, mask)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Feature extractor without a classifier; the defaults are ResNet-18.

    Fields:
      stage_sizes: blocks of each stage; a stage is twice as wide as the one before it and has half
        its resolution.
      width: features of the first stage.
      stem: "conv7" is the published 7x7 convolution of stride 2 and 3x3 max-pool of stride 2;
        "conv3", a 3x3 convolution of stride 2 alone, leaves small images something to look at.
      dims: 2 for images; 3 for volumes, whose stem has stride 1 in time, while its max-pool and the
        stages halve time as well.
      axis_name: mapped axis whose devices share their batch statistics in training.
      dtype: of the convolutions; batch statistics and pooled features are float32.
    """

    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    stem: str = "conv7"
    dims: int = 2
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        probe: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Extract features.

        Args:
          x: float [N, H, W, C], or [N, T, H, W, C] where `dims` is 3.
          train: whether batch norms use the statistics of this batch; static.
          mask: bool [N], rows that count in batch statistics; all by default.
          probe: float32 of the maps' shape, added to them before they are pooled.

        Returns:
          The mean of the maps, float32 [N, D], and the maps of the last stage, float32
          [N, h, w, D] (or [N, t, h, w, D]), D = width * 2**(stages - 1).

        Raises:
          ValueError: x or the probe has another rank or shape.
        """
        if x.ndim != self.dims + 2:
            raise ValueError(
                f"the images have shape {x.shape}, expected {self.dims + 2} axes, as dims is "
                f"{self.dims}"
            )
        strides = (1, 2, 2)[3 - self.dims :]
        size = 7 if self.stem == "conv7" else 3
        x = _conv(self.width, size, strides, self.dtype, "conv1")(x.astype(self.dtype))
        bn1 = BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name="bn1")
        x = nn.relu(bn1(x, train, mask))
        if self.stem == "conv7":
            twos = (2,) * self.dims
            x = nn.max_pool(x, (3,) * self.dims, twos, [(1, 1)] * self.dims)
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                x = BasicBlock(
                    self.width * 2**stage,
                    (stride,) * self.dims,
                    self.axis_name,
                    self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train, mask)
        maps = x.astype(jnp.float32)
        if probe is not None:
            # A probe of another batch size would broadcast silently.
            if probe.shape != maps.shape:
                raise ValueError(f"the probe has shape {probe.shape}, the maps have {maps.shape}")
            maps = maps + probe
        return maps.mean(tuple(range(1, maps.ndim - 1))), maps
