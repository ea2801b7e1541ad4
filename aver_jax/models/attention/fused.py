"""Attention that nobody looks into, by the kernel of the device it is compiled for."""

import functools
import importlib.util

import jax
import jax.numpy as jnp

from aver_jax.models.attention.over_time import attend_over_time
from aver_jax.models.custom_gradients import attend, attend_with_map
from aver_jax.models.functions import Fuse, attention_softmax

ATTENTION_KERNELS = ("auto", "xla", "cudnn", "pallas")


def check_kernel(kernel: str, dtype: jnp.dtype) -> None:
    """Raises ValueError unless a kernel is one of `ATTENTION_KERNELS` and computes in a dtype."""
    if kernel not in ATTENTION_KERNELS:
        raise ValueError(f"kernel is {kernel!r}, expected one of {ATTENTION_KERNELS}")
    if kernel == "cudnn" and jnp.dtype(dtype) != jnp.bfloat16:
        raise ValueError(
            f"kernel 'cudnn' computes in bfloat16, found dtype {jnp.dtype(dtype).name}; "
            "set dtype to bfloat16, or kernel to 'auto'"
        )


def fused_row_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, length: int, kernel: str
) -> jax.Array:
    """Returns scaled dot-product attention along the rows, [A, S, D] of q, k and v [A, S, D].

    Args:
      q, k, v: their features are `heads` heads side by side.
      heads: number of heads, a divisor of D.
      length: tokens of a row from there on are not attended to; what they get means nothing.
      kernel: one of `ATTENTION_KERNELS`; "auto" is cuDNN's on NVIDIA GPUs (in bfloat16), a Pallas
        kernel on TPUs (`tpu`), and XLA's elsewhere and for rows too long for those.

    Raises:
      ValueError: cuDNN is not installed, or does not do this.
    """
    # Pallas takes a fifth of a second to import: commands that compute nothing do without.
    from aver_jax.models.attention import tpu

    def xla(q, k, v):
        arrays = (by_head(x, heads).swapaxes(1, 2) for x in (q, k, v))
        out, _ = attend(*arrays, valid_keys(q.shape[1], length), None)
        return joined(out.swapaxes(1, 2))

    def cudnn(q, k, v):
        return joined(cudnn_attention(*(by_head(x, heads) for x in (q, k, v)), length))

    pallas = xla
    if q.shape[1] <= tpu.MOST_TOKENS:
        anywhere = kernel == "pallas"
        pallas = functools.partial(tpu.row_attention, heads=heads, length=length, anywhere=anywhere)
    return _by_kernel(kernel, (q, k, v), xla, cudnn, pallas)


def fused_row_attention_with_map(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    probe: jax.Array,
    heads: int,
    length: int,
    kernel: str,
    fuse: Fuse,
) -> jax.Array:
    """Returns attention as `fused_row_attention`, with a map for the gradient of `probe` [A, S, S].

    As `functions.attend_with_map`. A kernel keeps no softmax: the map's is computed again, and only
    the map needs it and its gradient.

    Args:
      bias: [D], what all of v lacks. It changes the gradient of the softmax alone, and has none.
      q, k, v, heads, length, kernel: as `fused_row_attention`.
      probe, fuse: as `functions.attend_with_map`.
    """
    bias = jax.lax.stop_gradient(bias.astype(v.dtype))[None, None]

    def split(*arrays):
        return (by_head(x, heads).swapaxes(1, 2) for x in arrays)

    def xla(q, k, v, bias, probe):
        of_heads, valid = bias.reshape(heads, 1, -1), valid_keys(q.shape[1], length)
        out = attend_with_map(*split(q, k, v), of_heads, valid, probe, fuse)
        return joined(out.swapaxes(1, 2))

    def with_map(kernel):
        def attended(q, k, v):
            return fused_row_attention(q, k, v, heads, length, kernel)

        @jax.custom_vjp
        def attend(q, k, v, bias, probe):
            return attended(q, k, v)

        def forward(q, k, v, bias, probe):
            out, pullback = jax.vjp(attended, q, k, v)
            return out, (q, k, v, bias, pullback)

        def backward(kept, gradient):
            q, k, v, bias, pullback = kept
            softmax = attention_softmax(*split(q, k), valid_keys(q.shape[1], length))
            of_out, values = split(gradient, v + bias)
            of_softmax = (of_out @ values.swapaxes(-1, -2)).astype(jnp.float32)
            return *pullback(gradient), None, fuse(softmax, of_softmax)

        attend.defvjp(forward, backward)
        return attend

    return _by_kernel(kernel, (q, k, v, bias, probe), xla, with_map("cudnn"), with_map("pallas"))


def fused_time_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, kernel: str
) -> jax.Array:
    """Returns attention over axis 1, [B, T, S, D] of q, k and v [B, T, S, D].

    Args:
      q, k, v, heads, kernel: as `fused_row_attention`; cuDNN's kernel, which is made for long rows,
        takes no part.
    """
    from aver_jax.models.attention import tpu

    def xla(q, k, v):
        return joined(attend_over_time(*(by_head(x, heads) for x in (q, k, v)), None)[0])

    pallas = xla
    if q.shape[1] <= tpu.MOST_FRAMES:
        anywhere = kernel == "pallas"
        pallas = functools.partial(tpu.time_attention, heads=heads, anywhere=anywhere)
    return _by_kernel(kernel, (q, k, v), xla, xla, pallas)


def by_head(x: jax.Array, heads: int) -> jax.Array:
    """Returns x [..., D] as [..., h, d]."""
    return x.reshape(*x.shape[:-1], heads, -1)


def joined(x: jax.Array) -> jax.Array:
    """Returns x [..., h, d] as [..., D]."""
    return x.reshape(*x.shape[:-2], -1)


def valid_keys(tokens: int, lengths: jax.Array | int) -> jax.Array | None:
    """Returns which of a row's tokens are attended to, bool [A, 1, 1, S]; None for all.

    `lengths`: those before it are; int32 [A], or one number for all rows (A is 1).
    """
    if isinstance(lengths, int) and lengths == tokens:
        return None
    return jnp.arange(tokens)[None, None, None] < jnp.reshape(lengths, (-1, 1, 1, 1))


def _by_kernel(kernel, arrays, xla, cudnn, pallas):
    """Returns what one of three functions gives of the arrays, or "auto", the device's."""
    if kernel != "auto":
        return {"xla": xla, "cudnn": cudnn, "pallas": pallas}[kernel](*arrays)
    use_cudnn = arrays[0].dtype == jnp.bfloat16 and _has_cudnn()
    return jax.lax.platform_dependent(
        *arrays, tpu=pallas, cuda=cudnn if use_cudnn else xla, default=xla
    )


def _has_cudnn() -> bool:
    """Returns whether jax's plugin for NVIDIA GPUs is installed, without which cuDNN is not."""
    return any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))


def cudnn_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, length: int, implementation: str = "cudnn"
) -> jax.Array:
    """Returns attention [A, S, h, d] of q, k, v [A, S, h, d] by cuDNN's kernel.

    It has no backward pass for rows whose length 8 does not divide (197 tokens of a frame): they
    are filled up, and what fills them is not attended to and cut off again.

    Args:
      q, k, v: bfloat16 or float16.
      length: tokens from there on are not attended to.
      implementation: of `jax.nn.dot_product_attention`.

    Raises:
      ValueError: cuDNN is not installed, or does not do this.
    """
    rows, tokens = q.shape[:2]
    if fill := -tokens % 8:
        q, k, v = (jnp.pad(x, ((0, 0), (0, fill), (0, 0), (0, 0))) for x in (q, k, v))
    lengths = jnp.full(rows, length, jnp.int32) if length < q.shape[1] else None
    try:
        out = jax.nn.dot_product_attention(
            q, k, v, key_value_seq_lengths=lengths, implementation=implementation
        )
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"kernel {implementation!r} cannot be used here ({error}); it needs an NVIDIA GPU and "
            "cuDNN: use 'xla'"
        ) from error
    return out[:, :tokens]
