"""Multi-head self-attention with float32 parameters: over the tokens of a row, or over frames."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.attention.fused import cudnn_attention
from aver_jax.models.attention.over_time import attend_over_time
from aver_jax.models.custom_gradients import attend
from aver_jax.models.layers import Dense, Normed

ATTENTION_KERNELS = ("xla", "cudnn")


class _Heads(nn.Module):
    """The parameters of multi-head attention: `qkv` is [q|k|v], head-major."""

    num_heads: int
    dtype: Any
    kernel_init: nn.initializers.Initializer

    def _dense(self, features: int, name: str) -> Dense:
        return Dense(features, self.dtype, self.kernel_init, name=name)

    def _heads(self, x: jax.Array | Normed) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns q, k and v [..., h, d] of x [..., D]."""
        width = x.shape[-1]
        dense = self._dense(3 * width, "qkv")
        x, kernel, bias = dense.folded(x)
        heads = (*x.shape[:-1], self.num_heads, width // self.num_heads)
        # Three products: q, k and v come out as arrays of their own, and their gradients go in so.
        parts = zip(jnp.split(kernel, 3, axis=1), jnp.split(bias, 3), strict=True)
        return tuple(dense.product(x, *part).reshape(heads) for part in parts)


class Attention(_Heads):
    """Multi-head self-attention over axis 1 of x [A, S, D].

    `kernel` computes what nobody looks into: one of `ATTENTION_KERNELS`.
    """

    kernel: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array | Normed,
        explicit: bool = False,
        probe: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns the output [A, S, D] and, if explicit, the softmax, float32 [A, h, S, S].

        `lengths` int32 [A]: tokens from there on are not attended to (by default, all are).
        """
        q, k, v = self._heads(x)
        weights = None
        if self.kernel == "xla" or explicit:
            valid = None
            if lengths is not None:
                valid = jnp.arange(x.shape[1])[None, None, None] < lengths[:, None, None, None]
            q, k, v = (part.swapaxes(1, 2) for part in (q, k, v))
            out, softmax = attend(q, k, v, valid, probe)
            out = out.swapaxes(1, 2)
            weights = softmax if explicit else None
        else:
            out = cudnn_attention(q, k, v, lengths, self.kernel)
        return self._dense(x.shape[-1], "proj")(out.reshape(x.shape)), weights


class TimeAttention(_Heads):
    """Multi-head self-attention over the frames of x [B*T, S, D], for every position by itself."""

    @nn.compact
    def __call__(
        self, x: jax.Array | Normed, frames: int, probe: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
        """Returns heads' outputs before their projection, what they attend to, and the projection.

        Args:
          x: [B*T, S, D], frame t of clip b in row b*T + t.
          frames: T.
          probe: float32 [B, S, h, T, T], added to the softmax.

        Returns:
          The outputs [B*T, S, D]; the softmax and the probe, float32 [B, S, h, T, T]; kernel
          [D, D] and bias [D] of `proj`, which the caller multiplies with what follows.
        """
        q, k, v = (part.reshape(-1, frames, *part.shape[1:]) for part in self._heads(x))
        if probe is not None:
            probe = probe.transpose(0, 3, 4, 1, 2)
        out, weights = attend_over_time(q, k, v, probe)
        projection = self._dense(x.shape[-1], "proj").weights(x.shape[-1])
        return out.reshape(x.shape), weights.transpose(0, 3, 4, 1, 2), projection
