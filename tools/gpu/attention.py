"""cuDNN's attention beside the explicit softmax: values and gradients, at TimeSformer-B's shape.

    python -m tools.gpu.attention --sizes full --out FILE.jsonl

The formula is computed in float32, of the same bfloat16 arrays. XLA's attention in bfloat16 is
compared with it as well: what cuDNN's may differ by is of that kind. Where there is no NVIDIA GPU
cuDNN is "not here".
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from aver_jax.models.attention.fused import fused_row_attention
from tools.gpu.findings import NOT_HERE, Findings
from tools.gpu.sizes import SIZES, Sizes, arguments

# Relative to the largest value, and of the whole array's norm. bfloat16 rounds by 2^-9 = 2e-3 at
# most: the result, the weights of the softmax, and in the backward pass the gradient of the scores.
_TOLERANCES = {"values": 8e-3, "gradients": 1.6e-2, "values, norm": 8e-3, "gradients, norm": 8e-3}
_CUDNN_CALL = "cudnn$fmha"


def explicit(q: jax.Array, k: jax.Array, v: jax.Array, heads: int, length: int) -> jax.Array:
    """Returns softmax(q k^T / sqrt(d)) v of the first `length` keys, float32 [A, S, D]."""
    rows, tokens, width = q.shape
    shape = (rows, tokens, heads, width // heads)
    q, k, v = (x.astype(jnp.float32).reshape(shape) for x in (q, k, v))
    scores = jnp.einsum("aqhd,akhd->ahqk", q, k, precision="highest") * shape[3] ** -0.5
    scores = jnp.where(jnp.arange(tokens) < length, scores, -jnp.inf)
    weights = jax.nn.softmax(scores)
    out = jnp.einsum("ahqk,akhd->aqhd", weights, v, precision="highest")
    return out.reshape(rows, tokens, width)


def shapes(sizes: Sizes) -> dict[str, tuple[int, int]]:
    """Returns (tokens, tokens attended to) by name."""
    tokens, filled = sizes.tokens, sizes.tokens + -sizes.tokens % 8
    shorter = 3 * tokens // 4
    return {
        f"{tokens} tokens filled to {filled}": (tokens, tokens),
        f"{filled} tokens, {tokens} attended to": (filled, tokens),
        f"{tokens} tokens, {shorter} attended to": (tokens, shorter),
    }


def compare(findings: Findings, sizes: Sizes, kernel: str) -> None:
    """Compares a kernel with the formula at every shape."""
    for name, (tokens, length) in shapes(sizes).items():
        shape = (sizes.rows, tokens, sizes.heads * sizes.head_size)
        keys = jax.random.split(jax.random.key(0), 4)
        arrays = [jax.random.normal(key, shape, "bfloat16") for key in keys]
        # What tokens get that nobody attends to means nothing.
        arrays[3] = arrays[3].at[:, length:].set(0)

        def with_gradients(attend, length=length):
            def weighted(q, k, v, weight):
                out = attend(q, k, v)[:, :length]
                return (out.astype(jnp.float32) * weight[:, :length]).sum(), out

            return jax.jit(jax.value_and_grad(weighted, (0, 1, 2), has_aux=True))

        def kernel_of(q, k, v, length=length):
            return fused_row_attention(q, k, v, sizes.heads, length, kernel)

        def formula(q, k, v, length=length):
            return explicit(q, k, v, sizes.heads, length)

        with findings.checking(f"attention by {kernel}, {name}", _TOLERANCES) as errors:
            ((_, expected), gradients) = with_gradients(formula)(*arrays)
            function = with_gradients(kernel_of)
            if kernel != "xla" and _CUDNN_CALL not in function.lower(*arrays).compile().as_text():
                raise ValueError(f"no kernel of cuDNN is in the program of kernel={kernel}")
            ((_, found), others) = function(*arrays)
            # Without a gradient cuDNN runs another kernel.
            alone = jax.jit(kernel_of)(*arrays[:3])[:, :length]
            pairs = [(found, expected), (alone, expected)]
            errors["values"], errors["values, norm"] = _worst(pairs)
            pairs = list(zip(others, gradients, strict=True))
            errors["gradients"], errors["gradients, norm"] = _worst(pairs)


def _worst(pairs) -> tuple[float, float]:
    """Returns the largest error over the largest value, and the error's norm over the values'."""
    largest, norm = [], []
    for found, expected in pairs:
        found, expected = (np.asarray(x, np.float32) for x in (found, expected))
        largest.append(np.abs(found - expected).max() / np.abs(expected).max())
        norm.append(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return float(np.max(largest)), float(np.max(norm))


def main() -> int:
    """Compares; 1 if something differs."""
    args = arguments(__doc__).parse_args()
    findings, sizes = Findings(args.out), SIZES[args.sizes]
    on_gpu = jax.default_backend() == "gpu"
    for kernel in ("cudnn", "auto"):
        if on_gpu:
            compare(findings, sizes, kernel)
        else:
            for name in shapes(sizes):
                findings.add(f"attention by {kernel}, {name}", NOT_HERE, note="no NVIDIA GPU")
    compare(findings, sizes, "xla")
    return int(findings.failed)


if __name__ == "__main__":
    sys.exit(main())
