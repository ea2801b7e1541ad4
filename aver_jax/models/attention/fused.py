"""Attention that nobody looks into, by the kernel of the device it is compiled for."""

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
    from aver_jax.models.attention import tpu

    by_head = (*q.shape[:2], heads, q.shape[2] // heads)

    def xla(q, k, v):
        valid = _valid(q, length)
        q, k, v = (x.reshape(by_head).swapaxes(1, 2) for x in (q, k, v))
        return attend(q, k, v, valid, None)[0].swapaxes(1, 2).reshape(*by_head[:2], -1)

    def cudnn(q, k, v):
        q, k, v = (x.reshape(by_head) for x in (q, k, v))
        return cudnn_attention(q, k, v, length).reshape(*by_head[:2], -1)

    def pallas(q, k, v):
        return tpu.row_attention(q, k, v, heads, length)

    def interpreted(q, k, v):
        return tpu.row_attention(q, k, v, heads, length, interpret=True)

    fits = q.shape[1] <= tpu.MOST_TOKENS
    return _by_kernel(kernel, (q, k, v), xla, cudnn, pallas if fits else xla, interpreted)


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
    by_head = (*q.shape[:2], heads, q.shape[2] // heads)

    bias = jax.lax.stop_gradient(bias.astype(v.dtype))[None, None]

    def split(*arrays):
        return (x.reshape(by_head).swapaxes(1, 2) for x in arrays)

    def xla(q, k, v, bias, probe):
        of_heads = bias.reshape(heads, 1, -1)
        out = attend_with_map(*split(q, k, v), of_heads, _valid(q, length), probe, fuse)
        return out.swapaxes(1, 2).reshape(*by_head[:2], -1)

    def attended(kernel):
        return lambda q, k, v: fused_row_attention(q, k, v, heads, length, kernel)

    def with_map(kernel):
        @jax.custom_vjp
        def attend(q, k, v, bias, probe):
            return attended(kernel)(q, k, v)

        def forward(q, k, v, bias, probe):
            out, pullback = jax.vjp(attended(kernel), q, k, v)
            return out, (q, k, v, bias, pullback)

        def backward(kept, gradient):
            q, k, v, bias, pullback = kept
            softmax = attention_softmax(*split(q, k), _valid(q, length))
            of_out, values = split(gradient, v + bias)
            of_softmax = (of_out @ values.swapaxes(-1, -2)).astype(jnp.float32)
            return *pullback(gradient), None, fuse(softmax, of_softmax)

        attend.defvjp(forward, backward)
        return attend

    return _by_kernel(
        kernel,
        (q, k, v, bias, probe),
        xla,
        with_map("cudnn"),
        with_map("pallas"),
        with_map("pallas"),
    )


def fused_time_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, kernel: str
) -> jax.Array:
    """Returns attention over axis 1, [B, T, S, D] of q, k and v [B, T, S, D].

    Args:
      q, k, v, heads, kernel: as `fused_row_attention`; cuDNN's kernel, which is made for long rows,
        takes no part.
    """
    from aver_jax.models.attention import tpu

    by_head = (*q.shape[:3], heads, q.shape[3] // heads)

    def xla(q, k, v):
        out, _ = attend_over_time(*(x.reshape(by_head) for x in (q, k, v)), None)
        return out.reshape(*by_head[:3], -1)

    def pallas(q, k, v):
        return tpu.time_attention(q, k, v, heads)

    def interpreted(q, k, v):
        return tpu.time_attention(q, k, v, heads, interpret=True)

    fits = q.shape[1] <= tpu.MOST_FRAMES
    return _by_kernel(kernel, (q, k, v), xla, xla, pallas if fits else xla, interpreted)


def _valid(rows: jax.Array, length: int) -> jax.Array | None:
    """Returns which tokens of rows [A, S, D] are attended to, bool [1, 1, 1, S]; None for all."""
    if length == rows.shape[1]:
        return None
    return (jnp.arange(rows.shape[1]) < length)[None, None, None]


def _by_kernel(kernel, arrays, xla, cudnn, pallas, interpreted):
    if kernel == "xla":
        return xla(*arrays)
    if kernel == "cudnn":
        return cudnn(*arrays)
    if kernel == "pallas":
        other = xla if pallas is xla else interpreted
        return jax.lax.platform_dependent(*arrays, tpu=pallas, default=other)
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
