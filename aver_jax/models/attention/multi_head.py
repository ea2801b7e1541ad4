"""Multi-head self-attention with float32 parameters: over the tokens of a row, or over frames."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.attention.fused import (
    by_head,
    fused_row_attention,
    fused_row_attention_with_map,
    fused_time_attention,
    joined,
    valid_keys,
)
from aver_jax.models.attention.over_time import attend_over_time, attend_over_time_with_map
from aver_jax.models.custom_gradients import attend
from aver_jax.models.functions import Fuse
from aver_jax.models.gradient_rules import TRUE, GradientRules
from aver_jax.models.layers import Dense, Normed, product


class _MultiHead(nn.Module):
    """The parameters of multi-head attention: `qkv` is [q|k|v], head-major, and `proj`.

    Of their biases only that of q costs a pass over the tokens. That of k adds the same to all
    scores of a query, which changes no softmax; that of v comes out as it is, since the weights of
    a query sum to 1, and is added to the bias of what follows.
    """

    num_heads: int
    dtype: Any
    kernel_init: nn.initializers.Initializer
    kernel: str = "xla"
    rules: GradientRules = TRUE

    def _dense(self, features: int, name: str) -> Dense:
        return Dense(features, self.dtype, self.kernel_init, name=name)

    def _qkv(
        self, x: jax.Array | Normed, whole: bool
    ) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        """Returns q, k and v [..., D] of x [..., D], and what is left to add to what is attended.

        `whole`: q, k and v with their biases, for attention whose weights do not sum to 1.
        """
        width = x.shape[-1]
        dense = self._dense(3 * width, "qkv")
        x, kernel, bias = dense.folded(x)
        of_q, of_k, of_v = jnp.split(bias, 3)
        biases = (of_q, of_k, of_v) if whole else (of_q, None, None)

        def together(x, kernel, bias):
            return tuple(jnp.split(product(x, kernel, bias), 3, axis=-1))

        def apart(x, kernel, bias):
            # q, k and v come out as arrays of their own, and their gradients go in so.
            kernels = jnp.split(kernel, 3, axis=1)
            return tuple(product(x, *part) for part in zip(kernels, biases, strict=True))

        if not whole:
            bias = jnp.concatenate([of_q, jnp.zeros(2 * width)])
        parts = jax.lax.platform_dependent(x, kernel, bias, cpu=together, default=apart)
        return self.rules.attended(*parts), None if whole else of_v

    def _projection(self, width: int, rest: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Returns kernel and bias of `proj`, what is left to add to its input in the bias."""
        kernel, bias = self._dense(width, "proj").weights(width)
        if rest is not None:
            bias = bias + jnp.matmul(rest, kernel, precision="highest")
        return kernel, bias


class Attention(_MultiHead):
    """Multi-head self-attention over axis 1 of x [A, S, D].

    `kernel` computes what nobody looks into: one of `ATTENTION_KERNELS`.
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array | Normed,
        explicit: bool = False,
        probe: jax.Array | None = None,
        lengths: jax.Array | int | None = None,
        fuse: Fuse | None = None,
    ) -> tuple[jax.Array, jax.Array | None, tuple[jax.Array, jax.Array]]:
        """Returns heads' outputs before their projection, what they attend to, and the projection.

        Args:
          x: [A, S, D].
          explicit: whether the softmax is returned; static.
          probe: float32 [A, h, S, S], added to the softmax; with `fuse`, [A, S, S], whose gradient
            is the map (`functions.attend_with_map`).
          lengths: tokens from there on are not attended to (by default, all are); int32 [A], or one
            number for all rows.
          fuse: as `functions.attend_with_map`.

        Returns:
          The outputs [A, S, D]; the softmax and the probe, float32 [A, h, S, S], if explicit;
          kernel [D, D] and bias [D] of `proj`, to multiply the outputs with (`layers.product`).
        """
        _, tokens, width = x.shape
        # A softmax with a probe on it does not sum to 1.
        (q, k, v), rest = self._qkv(x, whole=probe is not None and not fuse)
        weights = None
        length = tokens if lengths is None else lengths
        if fuse and probe is not None:
            out = fused_row_attention_with_map(
                q, k, v, rest, probe, self.num_heads, length, self.kernel, fuse
            )
        elif explicit or probe is not None or not isinstance(length, int):
            q, k, v = (by_head(part, self.num_heads).swapaxes(1, 2) for part in (q, k, v))
            out, softmax = attend(q, k, v, valid_keys(tokens, length), probe)
            out = joined(out.swapaxes(1, 2))
            weights = softmax if explicit else None
        else:
            out = fused_row_attention(q, k, v, self.num_heads, length, self.kernel)
        return out, weights, self._projection(width, rest)


class TimeAttention(_MultiHead):
    """Multi-head self-attention over the frames of x [B*T, S, D], for every position by itself."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array | Normed,
        frames: int,
        explicit: bool = False,
        probe: jax.Array | None = None,
        fuse: Fuse | None = None,
    ) -> tuple[jax.Array, jax.Array | None, tuple[jax.Array, jax.Array]]:
        """Returns heads' outputs before their projection, what they attend to, and the projection.

        Args:
          x: [B*T, S, D], frame t of clip b in row b*T + t.
          frames: T.
          explicit: whether the softmax is returned.
          probe: float32 [B, S, h, T, T], added to the softmax; with `fuse`, [B, S, T, T].
          fuse: as in `Attention`.

        Returns:
          The outputs [B*T, S, D]; the softmax and the probe, float32 [B, S, h, T, T], if explicit;
          kernel [D, D] and bias [D] of `proj`, which the caller multiplies with what follows.
        """
        rows, tokens, width = x.shape
        parts, rest = self._qkv(x, whole=probe is not None and not fuse)
        q, k, v = (part.reshape(-1, frames, tokens, width) for part in parts)
        weights = None
        if not explicit and probe is None:
            out = fused_time_attention(q, k, v, self.num_heads, self.kernel)
        else:
            q, k, v = (by_head(part, self.num_heads) for part in (q, k, v))
            if fuse and probe is not None:
                bias = by_head(jax.lax.stop_gradient(rest).astype(v.dtype), self.num_heads)
                out = attend_over_time_with_map(q, k, v, bias, probe, fuse)
            else:
                if probe is not None:
                    probe = probe.transpose(0, 3, 4, 1, 2)
                out, weights = attend_over_time(q, k, v, probe)
                weights = weights.transpose(0, 3, 4, 1, 2)
        return out.reshape(rows, tokens, width), weights, self._projection(width, rest)
