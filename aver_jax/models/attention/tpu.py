"""Attention on TPUs: a Pallas kernel that reads q, k and v as their products leave them.

XLA's own attention first gives every head an array of its own, [A, h, S, d], whose last axis of 64
fills half of a tile, and keeps the attention matrix in memory. Here a program takes a block of
tokens with all their features, and goes over the heads, which are columns of it. The backward
pass computes the attention matrix again, in the chip's memory.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

#: Tokens of a row, which is one block: of more tokens, an attention matrix is too large for the chip's memory.
MOST_TOKENS = 512
#: Frames of a clip in attention over time: a block holds 16 of each.
MOST_FRAMES = MOST_TOKENS // 16
# Positions of a block of attention over time: what the tile of a 16-bit array has.
_POSITIONS = 16
_MEMORY = 64 * 2**20


def row_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, length: int, interpret: bool = False
) -> jax.Array:
    """Returns scaled dot-product attention along axis 1 [A, S, D] of q, k and v [A, S, D].

    Args:
      q, k, v: their features are `heads` heads side by side; S at most `MOST_TOKENS`.
      heads: number of heads, a divisor of D.
      length: tokens from there on are not attended to.
      interpret: whether the kernel is interpreted, as it is on devices that are no TPU.
    """
    arrays = [x[:, None] for x in (q, k, v)]
    return _attention(*arrays, heads, length, q.shape[1], interpret)[:, 0]


def time_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, interpret: bool = False
) -> jax.Array:
    """Returns attention over axis 1 [B, T, S, D] of q, k and v [B, T, S, D], for every S by itself.

    A block holds all frames of 16 positions, and its attention matrix those of one position to
    another, which are masked: one product of full tiles is cheaper than 16 small ones.

    Args:
      q, k, v: as `row_attention`; T at most `MOST_FRAMES`.
      heads, interpret: as `row_attention`.
    """
    return _attention(q, k, v, heads, q.shape[2], _POSITIONS, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _attention(q, k, v, heads, length, positions, interpret):
    """Returns attention within blocks [T, positions, D] of arrays [A, T, S, D].

    With T > 1 a token attends to its own position alone.
    """
    return _call(_forward_kernel, (q, k, v), 1, heads, length, positions, interpret)[0]


def _forward(q, k, v, heads, length, positions, interpret):
    out = _attention(q, k, v, heads, length, positions, interpret)
    return out, (q, k, v)


def _backward(heads, length, positions, interpret, kept, gradient):
    return tuple(
        _call(_backward_kernel, (*kept, gradient), 3, heads, length, positions, interpret)
    )


_attention.defvjp(_forward, _backward)


def _call(kernel, arrays, results, heads, length, positions, interpret):
    """Runs a kernel over blocks of positions; the results are shaped as the arrays."""
    rows, frames, tokens, width = arrays[0].shape
    block = pl.BlockSpec((1, frames, positions, width), lambda a, s: (a, 0, s, 0))
    size, dtype = frames * positions, arrays[0].dtype
    blocks = rows * pl.cdiv(tokens, positions)
    products = 2 if results == 1 else 5
    return pl.pallas_call(
        functools.partial(kernel, heads=heads, length=length),
        grid=(rows, pl.cdiv(tokens, positions)),
        in_specs=[block] * len(arrays),
        out_specs=[block] * results,
        out_shape=[jax.ShapeDtypeStruct(arrays[0].shape, dtype)] * results,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_MEMORY
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * blocks * size**2 * width,
            bytes_accessed=(len(arrays) + results) * arrays[0].size * dtype.itemsize,
            transcendentals=blocks * heads * size**2,
        ),
        interpret=interpret,
    )(*arrays)


def _forward_kernel(q, k, v, out, *, heads, length):
    *arrays, mask = _block(length, q, k, v)

    def of_head(q, k, v):
        softmax = _softmax(q, k, mask)
        return (_dot(softmax.astype(v.dtype), v, 1, 0),)

    _over_heads(of_head, arrays, (out,), heads)


def _backward_kernel(q, k, v, gradient, of_q, of_k, of_v, *, heads, length):
    *arrays, mask = _block(length, q, k, v, gradient)

    def of_head(q, k, v, gradient):
        softmax = _softmax(q, k, mask)
        of_v = _dot(softmax.astype(v.dtype), gradient, 0, 0)
        of_softmax = _dot(gradient, v, 1, 1)
        along = (of_softmax * softmax).sum(-1, keepdims=True)
        of_scores = (softmax * (of_softmax - along) * q.shape[-1] ** -0.5).astype(q.dtype)
        return _dot(of_scores, k, 1, 0), _dot(of_scores, q, 0, 0), of_v

    _over_heads(of_head, arrays, (of_q, of_k, of_v), heads)


def _block(length, *refs):
    """Returns the arrays of a block as tokens [T * positions, D], and which attends to which."""
    _, frames, positions, width = refs[0].shape
    size = frames * positions
    first = pl.program_id(1) * positions

    def position(axis):
        return jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) % positions

    mask = first + position(1) < length
    if frames > 1:
        mask &= position(0) == position(1)
    # Past the array's end a block holds anything, even what is no number.
    inside = jax.lax.broadcasted_iota(jnp.int32, (size, 1), 0) % positions + first < length
    arrays = [ref[0].reshape(size, width) for ref in refs]
    return *(jnp.where(inside, x, jnp.zeros_like(x)) for x in arrays), mask


def _over_heads(function, arrays, outs, heads):
    """Writes what a function makes of every head's columns into the same columns of `outs`."""
    width = arrays[0].shape[-1]
    size = width // heads
    # As many heads at once as fill a tile's 128 columns.
    together = math.gcd(heads, max(1, 128 // size))
    for first in range(0, heads, together):
        found = []
        for head in range(first, first + together):
            found.append(function(*(x[:, head * size : (head + 1) * size] for x in arrays)))
        columns = slice(first * size, (first + together) * size)
        for out, parts in zip(outs, zip(*found, strict=True), strict=True):
            joined = jnp.concatenate(parts, axis=-1).astype(out.dtype)
            out[0, :, :, columns] = joined.reshape(*out.shape[1:3], -1)


def _softmax(q, k, mask):
    scores = jnp.where(mask, _dot(q, k, 1, 1) * q.shape[-1] ** -0.5, -1e30)
    powers = jnp.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _dot(a, b, of_a, of_b):
    """Returns the product of two matrices over these axes, in float32."""
    return jax.lax.dot_general(
        a, b, (((of_a,), (of_b,)), ((), ())), preferred_element_type=jnp.float32
    )
