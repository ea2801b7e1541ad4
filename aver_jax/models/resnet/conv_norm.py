"""A convolution and the batch norm after it, as one: each spares the other passes over memory."""

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.batch_norm import centred_affine, pixel_mean, row_mean
from aver_jax.models.functions import along_last
from aver_jax.models.norm import BatchNorm


class Kernel(nn.Module):
    """The kernel of a convolution without bias, He-normal by fan-out: "kernel" [*window, C, D]."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the kernel, float32."""
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        return self.param("kernel", init, self.shape, jnp.float32)


def conv_norm(
    norm: BatchNorm,
    name: str,
    features: int,
    size: int,
    strides: Sequence[int],
    x: jax.Array,
    train: bool,
    mask: jax.Array | None = None,
    added: jax.Array | None = None,
) -> jax.Array:
    """Returns norm(conv(x)), computed in the dtype of `norm`. For use in a module's `__call__`.

    In evaluation the norm is in the kernel and in what is added after it, but on CPUs.

    Args:
      norm: what follows the convolution.
      name: of the convolution among its module's parameters.
      features: its channels, D.
      size: of its window along every axis, odd; it is padded by half.
      strides: along every axis.
      x: float [N, *sizes, C].
      train, mask, added: as of `norm`.
    """
    axes = len(strides)
    kernel = Kernel((size,) * axes + (x.shape[-1], features), name=name)()
    x = x.astype(norm.dtype)
    # In numbers: at stride 2, "SAME" pads other sides than torch.
    padding = ((size // 2, size // 2),) * axes
    if not train:
        y = jax.lax.platform_dependent(
            x,
            kernel,
            *norm.running(features),
            # A CPU is slow with kernels that are computed.
            cpu=lambda x, kernel, *running: centred_affine(
                convolved(x, kernel.astype(x.dtype), strides, padding), *running
            ).astype(x.dtype),
            default=lambda *args: _folded(*args, strides, padding),
        )
        return norm.finished(y, added)
    if norm.pool:
        kernel *= along_last(norm.sign(features), kernel)
    kernel = kernel.astype(x.dtype)
    y = convolved(x, kernel, strides, padding)
    # A TPU sums in the kernel of the convolution what it knows before. Elsewhere that is slower.
    near = jax.lax.platform_dependent(
        *jax.lax.stop_gradient((x, kernel, y)),
        tpu=lambda x, kernel, y: _pixel_mean_ahead(x, kernel, strides, padding, mask),
        default=lambda x, kernel, y: pixel_mean(y, mask),
    )
    return norm(y, train, mask, added, near)


def _folded(
    x: jax.Array,
    kernel: jax.Array,
    mean: jax.Array,
    factor: jax.Array,
    bias: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> jax.Array:
    """Returns (conv(x) - mean) * factor + bias by the convolution alone and a sum."""
    # Rounded once, with the factor.
    kernel = (kernel * along_last(factor, kernel)).astype(x.dtype)
    y = convolved(x, kernel, strides, padding)
    # In the dtype of y, or XLA fuses none of what follows into the convolutions of cuDNN.
    return y + along_last((bias - mean * factor).astype(y.dtype), y)


def _pixel_mean_ahead(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    mask: jax.Array | None,
) -> jax.Array:
    """Returns the `pixel_mean` of a convolution, float32 [D], but for rounding, from its inputs."""
    start, stop, missing = [], [], []
    sizes = _result_sizes(x, kernel, strides, padding)
    for n, size, stride, (before, _), width in zip(
        sizes, x.shape[1:-1], strides, padding, kernel.shape, strict=False
    ):
        first = n // 2 * stride - before
        start.append(max(first, 0))
        stop.append(min(first + width, size))
        missing.append((start[-1] - first, first + width - stop[-1]))
    seen = jax.lax.slice(x, (0, *start, 0), (len(x), *stop, x.shape[-1]))
    window = jnp.pad(row_mean(seen, mask), (*missing, (0, 0)))
    # A mean far from 0 needs its digits: not the bfloat16 products of a TPU.
    return jnp.matmul(
        window.reshape(1, -1),
        kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )[0]


def convolved(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> jax.Array:
    """Returns the convolution of x [N, *sizes, C] with a kernel [*window, C, D], channels last.

    A kernel wider than the whole result, as over the last maps of small pictures, is one matrix
    product with the windows side by side: XLA's convolutions, made to slide, take up to fifty times
    as long there on a CPU (docs/benchmarks/log.md).
    """
    window, channels = kernel.shape[:-2], x.shape[-1]
    sizes = _result_sizes(x, kernel, strides, padding)
    if any(size >= width for size, width in zip(sizes, window, strict=True)):
        last = "NHWC" if len(window) == 2 else "NTHWC"
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=(last, f"{last[1:-1]}IO", last)
        )
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def seen_at(offset: Sequence[int]) -> jax.Array:
        """Returns every result's pixel at one place of its window."""
        last = [o + (n - 1) * s + 1 for o, n, s in zip(offset, sizes, strides, strict=True)]
        start, stop = (0, *offset, 0), (x.shape[0], *last, channels)
        return jax.lax.slice(padded, start, stop, (1, *strides, 1))

    windows = [seen_at(offset) for offset in itertools.product(*map(range, window))]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _result_sizes(x, kernel, strides, padding) -> list[int]:
    return [
        (size + sum(sides) - width) // stride + 1
        for size, sides, width, stride in zip(
            x.shape[1:-1], padding, kernel.shape[:-2], strides, strict=True
        )
    ]
