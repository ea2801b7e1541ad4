"""ResNet of basic blocks, over images or over clips (He et al., 2016; Hara et al., 2018)."""

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.norm import BatchNorm

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
        x = _conv(self.width, size, strides, self.dtype, "conv1")(x)
        x = nn.relu(
            BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name="bn1")(x, train, mask)
        )
        if self.stem == "conv7":
            x = max_pool(x)
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

        def normed(x: jax.Array, size: int, strides: Sequence[int], conv: str, norm: str):
            x = _conv(self.features, size, strides, self.dtype, conv)(x)
            return BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=norm)(x, train, mask)

        y = nn.relu(normed(x, 3, strides, "conv1", "bn1"))
        y = normed(y, 3, (1,) * len(strides), "conv2", "bn2")
        if self.stride > 1 or x.shape[-1] != self.features:
            x = normed(x, 1, strides, "downsample_conv", "downsample_bn")
        return nn.relu(y + x)


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the maxima of windows 3 wide, 2 apart, from 1 before the start, of [N, ..., C].

    One axis after the other, by slices: the gradient of `nn.max_pool` takes 4 to 7 times as long
    on a CPU. Of equal values the first has the gradient, as in torch.
    """
    for axis in range(x.ndim - 2, 0, -1):
        steps = (x.shape[axis] + 1) // 2
        padding = [(0, 0, 0)] * x.ndim
        padding[axis] = (1, 1, 0)
        padded = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)
        first, second, third = (
            jax.lax.slice_in_dim(padded, start, start + 2 * steps - 1, 2, axis)
            for start in range(3)
        )
        x = _first_maximum(_first_maximum(first, second), third)
    return x


def _first_maximum(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where((b > a) | jnp.isnan(b), b, a)


def _conv(features: int, size: int, strides: Sequence[int], dtype: Any, name: str) -> nn.Conv:
    # Padding in numbers: at stride 2, "SAME" pads other sides than torch.
    return nn.Conv(
        features,
        (size,) * len(strides),
        strides=strides,
        padding=((size // 2, size // 2),) * len(strides),
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=dtype,
        name=name,
        conv_general_dilated=_convolved,
    )


def _convolved(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Returns the convolution of x [N, *sizes, D] with a kernel [*window, D, E], channels last.

    A kernel wider than the whole result, as over the last maps of small pictures, is one matrix
    product with the windows side by side: XLA's convolutions, made to slide, take up to fifty times
    as long there on a CPU (docs/benchmarks/log.md).
    """
    window, channels = kernel.shape[:-2], x.shape[-1]
    sizes = [
        (size + sum(sides) - width) // stride + 1
        for size, sides, width, stride in zip(x.shape[1:-1], padding, window, strides, strict=True)
    ]
    if any(size >= width for size, width in zip(sizes, window, strict=True)):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def seen_at(offset: Sequence[int]) -> jax.Array:
        """Returns every result's pixel at one place of its window."""
        last = [o + (n - 1) * s + 1 for o, n, s in zip(offset, sizes, strides, strict=True)]
        start, stop = (0, *offset, 0), (x.shape[0], *last, channels)
        return jax.lax.slice(padded, start, stop, (1, *strides, 1))

    windows = [seen_at(offset) for offset in itertools.product(*map(range, window))]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
