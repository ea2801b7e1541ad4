"""What the device does at best, measured: a large matrix product, and a large copy."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aver_jax.bench.roofline import Rates


def measured_rates(dtypes: Sequence[str], repeats: int = 7) -> Rates:
    """Measures the first device: a few seconds."""
    return Rates({dtype: _matmul_rate(dtype, repeats) for dtype in dtypes}, _copy_rate(repeats))


def _on_cpu() -> bool:
    return jax.devices()[0].platform == "cpu"


def _matmul_rate(dtype: str, repeats: int) -> float:
    size, products = (2048, 1) if _on_cpu() else (8192, 8)
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (size, size), dtype) for key in keys)
    # Scaled, so that a chain of products neither grows nor vanishes.
    right = (right * size**-0.5).astype(dtype)

    @jax.jit
    def chain(left, right):
        for _ in range(products):
            left = left @ right
        return left

    return 2 * products * size**3 / _seconds(lambda: chain(left, right), repeats)


def _copy_rate(repeats: int) -> float:
    # Beyond what caches hold.
    elements = 2**26 if _on_cpu() else 2**29
    values = jax.random.normal(jax.random.key(0), (elements,), "float32")
    # Of other values: a copy of the same may be no copy.
    negated = jax.jit(jnp.negative)
    return 2 * values.nbytes / _seconds(lambda: negated(values), repeats)


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of a call: the median of its repeats, the first left out."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
