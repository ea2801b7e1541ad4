"""Times implementations of attention over 8 tokens, over 197, and over a whole clip.

    python tools/bench_attention.py [--clips 64] [--dtype bfloat16] [--rounds 7] [--out FILE.json]

Forward and backward pass of one attention of TimeSformer-B for 8 frames of 224 x 224 pixels, from
q, k and v to their gradients: as batched matrix products (XLA), as broadcast multiplication and
sum, which fuses into one loop over a few tokens, and as cuDNN's kernel. Gradients are compared with
the explicit formula before anything is timed, and the candidates alternate. The result says which
one `TimeSformer.kernel` and `Attention` should use.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aver_jax.bench.timing import (
    alternated,
    calls_per_round,
    ratio,
    seconds_of_calls,
    seconds_per_call,
)

HEADS, HEAD_SIZE = 12, 64
# Rows per clip, and tokens of a row.
PLACES = {"time": (196, 8), "space": (8, 197), "joint": (1, 1569)}
# More tokens than this do not fit into registers.
MOST_BROADCAST = 16

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def explicit(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Returns softmax(q k^T / sqrt(d)) v for q, k, v [A, S, h, d], by the formula, in float32."""
    scores = jnp.einsum("aqhd,akhd->ahqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5)
    return jnp.einsum("ahqk,akhd->aqhd", weights.astype(v.dtype), v)


def broadcast(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Returns the same without matrix products."""
    scores = (q[:, :, None].astype(jnp.float32) * k[:, None]).sum(-1)  # [A, q, k, h]
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5, axis=2)
    return (weights[..., None] * v[:, None]).sum(2).astype(v.dtype)


def candidates(tokens: int, dtype: str) -> dict[str, Attend]:
    """Returns the functions that this device can run on rows of that many tokens."""
    found = {"xla": jax.nn.dot_product_attention, "explicit": explicit}
    if tokens <= MOST_BROADCAST:
        found["broadcast"] = broadcast
    if jax.default_backend() == "gpu" and dtype != "float32":
        found["cudnn"] = partial(jax.nn.dot_product_attention, implementation="cudnn")
    return found


def gradients(attend: Attend) -> Callable[..., tuple[jax.Array, ...]]:
    """Returns the jitted function (q, k, v, weight) -> gradients of sum(weight * attention)."""
    return jax.jit(
        jax.grad(
            lambda q, k, v, weight: (attend(q, k, v).astype(jnp.float32) * weight).sum(), (0, 1, 2)
        )
    )


def measure(place: str, clips: int, dtype: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns {candidate: {"ms": median, "speedup": of XLA's time}} at a place.

    Raises:
      ValueError: a candidate's gradients are not those of the formula.
    """
    rows, tokens = PLACES[place]
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (clips * rows, tokens, HEADS, HEAD_SIZE)
    arrays = [jax.random.normal(key, shape, dtype) for key in keys]
    functions = {name: gradients(attend) for name, attend in candidates(tokens, dtype).items()}
    expected = [np.asarray(x, np.float32) for x in functions["explicit"](*arrays)]
    tolerance = 1e-4 if dtype == "float32" else 0.05
    for name, function in functions.items():
        for found, right in zip(function(*arrays), expected, strict=True):
            worst = np.abs(np.asarray(found, np.float32) - right).max() / np.abs(right).max()
            if not worst <= tolerance:
                raise ValueError(f"{place}: gradients of {name} differ by {worst:.1e} of the most")

    def timed(function: Callable[..., object], calls: int) -> list[float]:
        return seconds_of_calls(lambda: jax.block_until_ready(function(*arrays)), calls)

    timers = {name: partial(timed, function) for name, function in functions.items()}
    calls = {name: calls_per_round(timer(1)[0]) for name, timer in timers.items()}
    found = alternated(timers, rounds, float("inf"), calls)
    return {
        name: {
            "ms": 1e3 * seconds_per_call(seconds).median,
            "speedup": 1 / ratio(found["xla"], seconds).median,
        }
        for name, seconds in found.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Prints a Markdown table, and writes the numbers as JSON to --out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument("--clips", type=int, default=1 if on_cpu else 64)
    parser.add_argument("--dtype", default="float32" if on_cpu else "bfloat16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {args.clips} clips, {args.dtype}"
    )
    print("\n| tokens | attention | ms | times XLA's speed |\n|---|---|---:|---:|")
    results = {}
    for place, (_, tokens) in PLACES.items():
        results[place] = measure(place, args.clips, args.dtype, args.rounds)
        for name, row in results[place].items():
            print(f"| {tokens} ({place}) | {name} | {row['ms']:.2f} | {row['speedup']:.2f} |")
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
