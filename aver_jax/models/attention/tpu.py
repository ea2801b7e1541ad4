"""Attention on TPUs: a Pallas kernel that reads q, k and v as their products leave them.

XLA's own attention first gives every head an array of its own, [A, h, S, d], whose last axis of 64
fills half of a tile, and keeps the attention matrix in memory. Here a program takes a block of
tokens with all their features, and goes over the heads, which are columns of it. The backward
pass computes the attention matrix again, in the chip's memory.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

#: Tokens of a row, which is one block: of more, an attention matrix is too large for the chip.
MOST_TOKENS = 512
#: Frames of a clip in attention over time: a block holds 16 of each.
MOST_FRAMES = MOST_TOKENS // 16
# Positions of a block of attention over time: what the tile of a 16-bit array has.
_POSITIONS = 16
_MEMORY = 64 * 2**20


def row_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, length: int, anywhere: bool = False
) -> jax.Array:
    """Returns scaled dot-product attention along axis 1 [A, S, D] of q, k and v [A, S, D].

    Args:
      q, k, v: their features are `heads` heads side by side; S at most `MOST_TOKENS`.
      heads: number of heads, a divisor of D.
      length: tokens from there on are not attended to.
      anywhere: whether it also runs where there is no TPU: there the kernel is interpreted.
    """
    arrays = [x[:, None] for x in (q, k, v)]
    return _attention(*arrays, heads, length, q.shape[1], anywhere)[:, 0]


def time_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, heads: int, anywhere: bool = False
) -> jax.Array:
    """Returns attention over axis 1 [B, T, S, D] of q, k and v [B, T, S, D], for every S by itself.

    A block holds all frames of 16 positions, and its attention matrix those of one position to
    another, which are masked: one product of full tiles is cheaper than 16 small ones.

    Args:
      q, k, v: as `row_attention`; T at most `MOST_FRAMES`.
      heads, anywhere: as `row_attention`.
    """
    return _attention(q, k, v, heads, q.shape[2], _POSITIONS, anywhere)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _attention(q, k, v, heads, length, positions, anywhere):
    """Returns attention within blocks [T, positions, D] of arrays [A, T, S, D].

    With T > 1 a token attends to its own position alone.
    """
    return _call(_forward_kernel, (q, k, v), [_like(q)], 2, heads, length, positions, anywhere)[0]


def _forward(q, k, v, heads, length, positions, anywhere):
    sums = jax.ShapeDtypeStruct((*q.shape[:3], heads), jnp.float32)
    settings = (heads, length, positions, anywhere)
    out, log_sum = _call(_forward_kernel, (q, k, v), [_like(q), sums], 2, *settings)
    return out, (q, k, v, out, log_sum)


def _backward(heads, length, positions, anywhere, kept, gradient):
    results, settings = [_like(x) for x in kept[:3]], (heads, length, positions, anywhere)
    return _call(_backward_kernel, (*kept, gradient), results, 5, *settings)


_attention.defvjp(_forward, _backward)


def _like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _call(kernel, arrays, results, products, heads, length, positions, anywhere):
    """Runs a kernel over blocks of positions of arrays [A, T, S, ...], which gives `results`."""
    rows, frames, tokens, width = arrays[0].shape
    grid = (rows, pl.cdiv(tokens, positions))

    def block(x):
        return pl.BlockSpec((1, frames, positions, x.shape[-1]), lambda a, s: (a, 0, s, 0))

    size = frames * positions

    def call(interpret):
        return pl.pallas_call(
            functools.partial(kernel, heads=heads, length=length),
            grid=grid,
            in_specs=[block(x) for x in arrays],
            out_specs=[block(x) for x in results],
            out_shape=results,
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_MEMORY
            ),
            cost_estimate=pl.CostEstimate(
                flops=2 * products * math.prod(grid) * size**2 * width,
                bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*arrays, *results)),
                transcendentals=math.prod(grid) * heads * size**2,
            ),
            interpret=interpret,
        )

    if not anywhere:
        return tuple(call(interpret=False)(*arrays))
    run = functools.partial(jax.lax.platform_dependent, *arrays)
    return tuple(run(tpu=call(interpret=False), default=call(interpret=True)))


def _forward_kernel(q, k, v, out, log_sum=None, *, heads, length):
    tile = _Tiles(q, heads, length)
    q, k, v = (tile.tokens(x) for x in (q, k, v))
    index = jax.lax.broadcasted_iota(jnp.int32, (1, heads), 1)
    largest, total = (jnp.ones((tile.size, heads), jnp.float32) for _ in range(2))
    for columns in tile.columns:
        attended = None
        for head in range(tile.together):
            scores = tile.scores(tile.of_head(q[:, columns], head), k[:, columns])
            most = scores.max(-1, keepdims=True)
            powers = jnp.exp(scores - most)
            summed = powers.sum(-1, keepdims=True)
            found = _dot(powers.astype(v.dtype), v[:, columns], 1, 0) * (1 / summed)
            attended = found if head == 0 else jnp.where(tile.is_head(head), found, attended)
            if log_sum is not None:
                is_head = index == columns.start // tile.head_width + head
                largest = jnp.where(is_head, most, largest)
                total = jnp.where(is_head, summed, total)
        out[0, :, :, columns] = tile.block(attended, out.dtype)
    if log_sum is not None:  # which the backward pass needs
        log_sum[0] = tile.block(largest + jnp.log(total), log_sum.dtype)


def _backward_kernel(q, k, v, out, log_sum, gradient, of_q, of_k, of_v, *, heads, length):
    tile = _Tiles(q, heads, length)
    arrays = (q, k, v, out, log_sum, gradient)
    q, k, v, out, log_sum, gradient = (tile.tokens(x) for x in arrays)
    for columns in tile.columns:
        # The heads of a tile one below the other: what they add to k and v is one product.
        query, of_out = (tile.by_head(x[:, columns]) for x in (q, gradient))
        first = columns.start // tile.head_width
        logs = [log_sum[:, first + i : first + i + 1] for i in range(tile.together)]
        scores = tile.scores(query, k[:, columns], masked=tile.shape[0] > 1)
        softmax = jnp.exp(scores - jnp.concatenate(logs))
        # The sum over keys of softmax times its gradient (Dao et al. 2022, appendix B).
        products = gradient[:, columns].astype(jnp.float32) * out[:, columns].astype(jnp.float32)
        along = tile.by_head(products).sum(-1, keepdims=True)
        of_scores = softmax * (_dot(of_out, v[:, columns], 1, 1) - along)
        softmax, of_scores = softmax.astype(q.dtype), of_scores.astype(q.dtype)
        of_query = tile.joined(_dot(of_scores, k[:, columns], 1, 0))
        of_q[0, :, :, columns] = tile.block(tile.scale * of_query, of_q.dtype)
        # What is not attended to is cut here, which is cheaper than in the softmax.
        of_key = tile.inside(tile.scale * _dot(of_scores, query, 0, 0))
        of_value = tile.inside(_dot(softmax, of_out, 0, 0))
        of_k[0, :, :, columns] = tile.block(of_key, of_k.dtype)
        of_v[0, :, :, columns] = tile.block(of_value, of_v.dtype)


class _Tiles:
    """A block of tokens [T * positions, D] seen by tiles of columns, and heads within a tile.

    A tile has 128 columns, and mostly more than one head. Heads are not cut out of it, which would
    shift columns: the others' are set to 0, and a product over all columns is as fast.
    """

    def __init__(self, block: Any, heads: int, length: int):
        _, frames, positions, width = block.shape
        self.shape, self.size = (frames, positions), frames * positions
        self.head_width = width // heads
        self.scale = self.head_width**-0.5
        self.together = math.gcd(heads, max(1, 128 // self.head_width))
        self.width = self.together * self.head_width
        self.columns = [slice(i, i + self.width) for i in range(0, width, self.width)]
        first = pl.program_id(1) * positions
        columns = jax.lax.broadcasted_iota(jnp.int32, (1, self.width), 1)
        # Not `//` and `%`, whose care for negative numbers asks which TPU is there.
        self._column = jax.lax.div(columns, self.head_width)

        def position(shape, axis):
            return jax.lax.rem(jax.lax.broadcasted_iota(jnp.int32, shape, axis), positions)

        ends = length < positions or length % positions
        # Past the array's end a block holds anything, even what is no number.
        inside = first + position((self.size, 1), 0) < length
        self._inside = inside if ends else None
        valid = first + position((1, self.size), 1) < length if ends else None
        if frames > 1:
            square = (self.size, self.size)
            same = position(square, 0) == position(square, 1)
            valid = same if valid is None else same & valid
        self._mask = None if valid is None else jnp.where(valid, 0.0, -1e30)

    def tokens(self, ref):
        return self.inside(ref[0].reshape(self.size, -1))

    def inside(self, x):
        """Returns x [tokens, ...], 0 where nothing is attended to."""
        return x if self._inside is None else jnp.where(self._inside, x, jnp.zeros_like(x))

    def block(self, x, dtype):
        return x.astype(dtype).reshape(*self.shape, -1)

    def is_head(self, head):
        return self._column == head

    def of_head(self, x, head):
        return x if self.together == 1 else jnp.where(self.is_head(head), x, jnp.zeros_like(x))

    def by_head(self, x):
        """Returns x [tokens, columns] for each head without the others, one below the other."""
        return jnp.concatenate([self.of_head(x, head) for head in range(self.together)])

    def joined(self, x):
        """Returns of x, as `by_head` gives it, every head's columns."""
        found = x[: self.size]
        for head in range(1, self.together):
            part = x[head * self.size : (head + 1) * self.size]
            found = jnp.where(self.is_head(head), part, found)
        return found

    def scores(self, q, k, masked=True):
        # A power of 2 is exact on the factor, which is smaller.
        exact = math.frexp(self.scale)[0] == 0.5
        found = _dot(q * self.scale, k, 1, 1) if exact else _dot(q, k, 1, 1) * self.scale
        if self._mask is None or not masked:
            return found
        if len(self._mask) == 1 or len(found) == self.size:
            return found + self._mask
        return found + jnp.concatenate([self._mask] * self.together)


def _dot(a, b, of_a, of_b):
    """Returns the product of two matrices over these axes, in float32."""
    return jax.lax.dot_general(
        a, b, (((of_a,), (of_b,)), ((), ())), preferred_element_type=jnp.float32
    )
