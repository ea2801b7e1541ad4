"""Attention that keeps no attention matrix in memory."""

import jax
import jax.numpy as jnp


def cudnn_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array | None = None,
    implementation: str = "cudnn",
) -> jax.Array:
    """Returns attention [A, S, h, d] of q, k, v [A, S, h, d] by cuDNN's kernel.

    It has no backward pass for lengths that 8 does not divide (197 tokens of a frame): rows are
    filled up, and what fills them is not attended to. Their own rows are cut off again, so that no
    gradient comes back through them.

    Args:
      q, k, v: bfloat16 or float16.
      lengths: int32 [A]: tokens from there on are not attended to; by default all are.
      implementation: of `jax.nn.dot_product_attention`.

    Raises:
      ValueError: cuDNN is not installed, or does not do this.
    """
    length = q.shape[1]
    if fill := -length % 8:
        q, k, v = (jnp.pad(x, ((0, 0), (0, fill), (0, 0), (0, 0))) for x in (q, k, v))
        lengths = jnp.full(q.shape[0], length, jnp.int32) if lengths is None else lengths
    try:
        out = jax.nn.dot_product_attention(
            q, k, v, key_value_seq_lengths=lengths, implementation=implementation
        )
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"kernel {implementation!r} cannot be used here ({error}); it needs an NVIDIA GPU and "
            "cuDNN: use 'xla'"
        ) from error
    return out[:, :length]
