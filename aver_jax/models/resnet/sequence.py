"""From a sequence of feature vectors to one: aggregation components (Chang 2021, 4.4 and 5.2)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aver_jax.models.attention.multi_head import Attention
from aver_jax.models.layers import LayerNorm, product
from aver_jax.models.timesformer.blocks import INIT_STD, Mlp, dense, normal_init

AGGREGATORS = ("lstm", "bilstm", "transformer", "mean")
ENCODER_LAYERS = 2
HEAD_SIZE = 64


def encoder_heads(features: int) -> int:
    """Returns the number of attention heads of an encoder `features` wide: one per 64."""
    return max(1, features // HEAD_SIZE)


def valid_steps(lengths: jax.Array, steps: int) -> jax.Array:
    """Returns bool [B, steps], True before each sequence's length (int32 [B])."""
    return jnp.arange(steps)[None] < lengths[:, None]


class Lstm(nn.Module):
    """The last hidden state of an LSTM (Hochreiter & Schmidhuber 1997), gates [i|f|g|o] as torch's.

    One bias vector: torch's two are only ever added. All parameters start uniform within
    1/sqrt(features), as torch's; the bias, one such draw, has 1/sqrt(2) of the deviation that the
    sum of torch's two has.
    """

    features: int
    dtype: Any
    reverse: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Returns the state after the last valid step, or after step 0 where `reverse`.

        Args:
          x: [B, T, D].
          valid: bool [B, T]; other steps leave the state as it is.

        Returns:
          float32 [B, features], zeros where no step is valid.
        """
        bound = self.features**-0.5

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        gates = 4 * self.features
        input_kernel = self.param("input_kernel", init, (x.shape[-1], gates))
        recurrent_kernel = self.param("recurrent_kernel", init, (self.features, gates))
        bias = self.param("bias", init, (gates,))

        # What the inputs contribute is one product for all steps; the loop is left with the state.
        projected = x.astype(self.dtype) @ input_kernel.astype(self.dtype)
        projected = projected.astype(jnp.float32) + bias[None, None]
        recurrent_kernel = recurrent_kernel.astype(self.dtype)

        def step(
            state: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            hidden, cell = state
            from_input, valid_now = now
            recurrent = jnp.matmul(
                hidden.astype(self.dtype), recurrent_kernel, preferred_element_type=jnp.float32
            )
            i, f, g, o = jnp.split(from_input + recurrent, 4, axis=-1)
            new_cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            new_hidden = nn.sigmoid(o) * jnp.tanh(new_cell)
            keep = valid_now[:, None]
            return (jnp.where(keep, new_hidden, hidden), jnp.where(keep, new_cell, cell)), None

        # Not unrolled: on a CPU, 4 to 16 steps then took as long or longer, and longer to compile.
        zeros = jnp.zeros((x.shape[0], self.features), jnp.float32)
        steps = (projected.swapaxes(0, 1), valid.T)
        (hidden, _), _ = jax.lax.scan(step, (zeros, zeros), steps, reverse=self.reverse)
        return hidden


class EncoderLayer(nn.Module):
    """A pre-norm layer of a Transformer encoder (Vaswani et al. 2017; Xiong et al. 2020)."""

    num_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Maps x [B, T, D] to [B, T, D]; steps past lengths int32 [B] are not attended to."""
        attention = Attention(self.num_heads, self.dtype, normal_init(INIT_STD), name="attn")
        normed = LayerNorm(self.dtype, name="norm1").parts(x)
        out, _, projection = attention(normed, lengths=lengths)
        x = x + product(out, *projection)
        mlp = Mlp(4 * x.shape[-1], self.dtype, name="mlp")
        return x + mlp(LayerNorm(self.dtype, name="norm2").parts(x))


def sinusoids(steps: int, width: int) -> np.ndarray:
    """Returns the position encodings of Vaswani et al. (2017), float32 [steps, width]."""
    position = np.arange(steps)[:, None]
    angle = position / 10000 ** (np.arange(0, width, 2)[None] / width)
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    return waves.reshape(steps, -1)[:, :width].astype(np.float32)


class Aggregator(nn.Module):
    """One feature vector for a sequence of them.

    Fields:
      kind: "lstm": the state after the last valid step. "bilstm": half the features from each
        direction, [forward's after the last valid step, backward's after step 0]. "transformer":
        the mean of the valid outputs of 2 pre-norm encoder layers over sinusoidal positions.
        "mean": the mean of the valid steps, which has no parameters and leaves the width as it is.
      features: width of the result.
      dtype: of the products; states, sums and the result are float32.
    """

    kind: str
    features: int
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_aggregator(self.kind, self.features)

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Aggregates a batch of sequences.

        Args:
          x: float [B, T, D].
          lengths: int32 [B], the valid steps of each sequence, all of them by default. What
            follows them does not touch the result.

        Returns:
          float32 [B, features], zeros where the length is 0.

        Raises:
          ValueError: "mean" of a width other than `features`.
        """
        batch, steps, width = x.shape
        if lengths is None:
            lengths = jnp.full((batch,), steps, jnp.int32)
        valid = valid_steps(lengths, steps)
        if self.kind == "lstm":
            return Lstm(self.features, self.dtype, name="forward")(x, valid)
        if self.kind == "bilstm":
            half = self.features // 2
            forward = Lstm(half, self.dtype, name="forward")(x, valid)
            backward = Lstm(half, self.dtype, reverse=True, name="backward")(x, valid)
            return jnp.concatenate([forward, backward], axis=-1)
        if self.kind == "transformer":
            x = self._encoded(x, lengths)
        elif width != self.features:
            raise ValueError(
                f"the mean of features {width} wide cannot be {self.features} wide; "
                f"set features={width}"
            )
        total = jnp.where(valid[..., None], x.astype(jnp.float32), 0).sum(axis=1)
        return total / jnp.maximum(lengths, 1)[:, None].astype(jnp.float32)

    def _encoded(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        if x.shape[-1] != self.features:
            x = dense(self.features, self.dtype, "input", INIT_STD)(x)
        x = x.astype(self.dtype) + sinusoids(x.shape[1], self.features)[None].astype(self.dtype)
        for layer in range(ENCODER_LAYERS):
            x = EncoderLayer(encoder_heads(self.features), self.dtype, name=f"layer{layer}")(
                x, lengths
            )
        return x


def check_aggregator(kind: str, features: int) -> None:
    """Raises ValueError unless an aggregator of this kind can be `features` wide."""
    if kind not in AGGREGATORS:
        raise ValueError(f"aggregator is {kind!r}, expected one of {AGGREGATORS}")
    if features < 1:
        raise ValueError(f"features is {features}, expected at least 1")
    if kind == "bilstm" and features % 2:
        raise ValueError(f"features is {features}, but the two directions of a bilstm share them")
    if kind == "transformer" and features % encoder_heads(features):
        raise ValueError(
            f"features is {features}, but a transformer has {encoder_heads(features)} heads of "
            f"equal width: take a multiple of {HEAD_SIZE}"
        )
