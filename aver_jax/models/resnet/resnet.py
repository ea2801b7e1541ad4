"""ResNet of basic blocks, over images or over clips (He et al., 2016; Hara et al., 2018)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.norm import BatchNorm
from aver_jax.models.resnet.conv_norm import conv_norm

STEMS = ("conv7", "conv3")


class ResNet(nn.Module):
    """ResNet without a classifier: features of images, and the maps they are the mean of.

    The layout is torchvision's: "conv1" and "bn1", then blocks "layerS_B" (stage S from 1, block B
    from 0) of "conv1", "bn1", "conv2", "bn2" and, where the shape changes, "downsample_conv" and
    "downsample_bn". The defaults are ResNet-18, and with dims=3 the 3D-ResNet-18 of Hara et al.
    Kernels are He-normal by fan-out, all else as in `BatchNorm`.

    Fields:
      stage_sizes: number of blocks of every stage; stages after the first halve all axes.
      width: channels of the stem and of the first stage; every stage doubles them.
      stem: "conv7", a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2; or, for small
        images, "conv3", a 3x3 convolution of stride 2 alone. The stem's convolution leaves time
        as it is, its max-pool halves it.
      dims: 2, or 3 for convolutions over time as well.
      axis_name: mapped axis whose devices share their batch statistics in training.
      dtype: of the computation; parameters, statistics and features are float32.
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
        """Computes the features of a batch.

        Args:
          x: float [N, H, W, C], or with dims=3 [N, T, H, W, C]; any size.
          train: whether batch statistics are those of this batch; static.
          mask: bool [N], the rows that count in the batch statistics; all of them by default.
          probe: float32, of the maps' shape, added to them before the pooling.

        Returns:
          The features, float32 [N, D] with D = width * 2**(stages - 1), and the maps whose mean
          they are, [N, h, w, D] or [N, t, h, w, D], in `dtype` (with a probe float32).

        Raises:
          ValueError: an unknown stem, or x or the probe of another shape.
        """
        if self.stem not in STEMS:
            raise ValueError(f"stem is {self.stem!r}, expected one of {STEMS}")
        if x.ndim != self.dims + 2:
            axes = "[N, H, W, C]" if self.dims == 2 else "[N, T, H, W, C]"
            raise ValueError(f"x has shape {x.shape}, expected {axes} with dims={self.dims}")
        size, stride = (7, 2) if self.stem == "conv7" else (3, 2)
        strides = (stride,) * 2 if self.dims == 2 else (1, stride, stride)
        norm = BatchNorm(
            relu=True,
            pool=self.stem == "conv7",
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="bn1",
        )
        x = conv_norm(norm, "conv1", self.width, size, strides, x, train, mask)
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                x = BasicBlock(
                    features=self.width * 2**stage,
                    stride=2 if stage and not block else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train, mask)
        if probe is not None:
            if probe.shape != x.shape:
                raise ValueError(f"the probe has shape {probe.shape}, the maps have {x.shape}")
            x = x + probe
        return x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1))), x


class BasicBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), then relu; kernels 3 wide along every axis."""

    features: int
    stride: int = 1
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Maps [N, ..., C] to [N, ..., features], every axis between divided by the stride."""
        strides = (self.stride,) * (x.ndim - 2)

        def layer(x, conv: str, norm: str, size: int, strides, relu: bool, added=None):
            norm = BatchNorm(relu=relu, axis_name=self.axis_name, dtype=self.dtype, name=norm)
            return conv_norm(norm, conv, self.features, size, strides, x, train, mask, added)

        y = layer(x, "conv1", "bn1", 3, strides, relu=True)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = layer(x, "downsample_conv", "downsample_bn", 1, strides, relu=False)
        else:
            # x is in memory, for conv1. A GPU would compute it again, from what is larger.
            x = jax.lax.optimization_barrier(x)
        return layer(y, "conv2", "bn2", 3, (1,) * len(strides), relu=True, added=x)
