"""Fourier transforms of real frames, on every platform.

On CPUs, XLA's own transform waits inside a thread pool for threads of the same pool: as many
transforms at a time as the pool has threads wait for each other for ever (seen on jax 0.11 with
several CPU devices; https://github.com/openxla/xla/pull/46347). On TPUs it is slow. There the
transform is two small matrix products instead.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def power(frames: Array) -> Array:
    """Returns squared magnitudes of the discrete Fourier transform of real frames.

    Args:
      frames: float32 [..., n], n even.

    Returns:
      float32 [..., n / 2 + 1], |sum over t of frames[t] exp(-2 pi i k t / n)|**2.
    """
    return jax.lax.platform_dependent(
        frames, cpu=_by_products, tpu=_by_products, default=_by_transform
    )


def _by_transform(frames: Array) -> Array:
    spectrum = jnp.fft.rfft(frames)
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def _by_products(frames: Array) -> Array:
    """Returns the transform of n = rows * columns values as one over rows, then one over columns.

    Cooley & Tukey (1965), one step: t = columns * a + b and k = c + rows * d give
    X[k] = sum over b of w_n^(b c) w_columns^(b d) (sum over a of w_rows^(a c) x[t]), which for
    n = 512 costs 51,000 multiply-adds where the whole matrix would cost 263,000.
    """
    length = frames.shape[-1]
    first, twiddle, second = _factors(length)
    rows, columns = first.shape[1], second.shape[1]
    grid = frames.reshape(*frames.shape[:-1], rows, columns)
    # Both parts of the first product at once; in full precision, as TF32 or bfloat16 would keep
    # three digits.
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    real, imaginary = product("pca,...ab->p...cb", first, grid)
    cos, sin = (jnp.broadcast_to(part, real.shape) for part in twiddle)
    turned_real = real * cos - imaginary * sin
    turned_imaginary = real * sin + imaginary * cos
    from_real = product("pbd,...cb->p...dc", second, turned_real)
    from_imaginary = product("pbd,...cb->p...dc", second, turned_imaginary)
    squared = jnp.square(from_real[0] - from_imaginary[1])
    squared += jnp.square(from_real[1] + from_imaginary[0])
    # [..., d, c] read row by row is k = c + rows * d.
    return squared.reshape(*frames.shape[:-1], -1)[..., : length // 2 + 1]


@functools.lru_cache(maxsize=8)
def _factors(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns float32 (real, imaginary) of [rows, rows], [rows, columns], [columns, kept].

    Kept are the columns of the second transform that lead to k <= length / 2.
    """
    rows = next(n for n in range(math.isqrt(length), 0, -1) if length % n == 0)
    columns = length // rows
    kept = length // 2 // rows + 1

    def turns(left: np.ndarray, right: np.ndarray, period: int) -> np.ndarray:
        # The product is taken modulo the period first: a large angle would lose digits.
        angle = -2 * np.pi * (np.outer(left, right) % period) / period
        return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)

    a, b = np.arange(rows), np.arange(columns)
    return turns(a, a, rows), turns(a, b, length), turns(b, np.arange(kept), columns)
