"""One layer of a TimeSformer: attention over time and space, or over all tokens, and an MLP."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.attention.multi_head import Attention, TimeAttention
from aver_jax.models.functions import Fuse
from aver_jax.models.gradient_rules import TRUE, GradientRules
from aver_jax.models.layers import LayerNorm, Normed, outnumber, product
from aver_jax.models.timesformer.blocks import INIT_STD, Mlp, dense, normal_init, scaled
from aver_jax.models.timesformer.rows import add_to_patches, clip_tokens, frame_rows


class Block(nn.Module):
    """One layer.

    Its tokens are rows x [A, S, D]. Divided attention has a frame in every row, [B*T, 1+N, D], and
    token 0 is a copy of the clip's cls token: attention over space is along a row, over time from
    row to row, and no array changes its order. Joint attention has a clip in every row, [cls, then
    p*T + t]; space-only attention a frame, [cls, then p]. Tokens from `length` on fill a row up,
    and nothing is attended to there.
    """

    num_frames: int
    num_heads: int
    mlp_hidden: int
    attention: str
    capture: tuple[str, ...]
    dtype: Any
    init_std: float = INIT_STD
    kernel: str = "auto"
    length: int | None = None
    fuse: Fuse | None = None
    rules: GradientRules = TRUE

    @nn.compact
    def __call__(
        self, x: jax.Array, layer: dict[str, dict[str, jax.Array]]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the tokens after the layer, shaped as x, and the taps asked for.

        `layer` holds what differs between layers: "drop", the factors of stochastic depth by site
        (empty outside training), and "probes", by tap.
        """
        drop, probes, taps = layer["drop"], layer["probes"], {}
        x = jax.lax.stop_gradient(x) if self.rules.layers_apart else x
        divided = self.attention == "divided_space_time"
        if divided:
            x = self._over_time(x, drop, probes, taps)
        tap = "attention_joint" if self.attention == "joint_space_time" else "attention_space"
        attention = Attention(
            self.num_heads,
            self.dtype,
            normal_init(self.init_std),
            self.kernel,
            self.rules,
            name="attn",
        )
        probe = probes.get(tap)
        if probe is not None and (fill := x.shape[1] - probe.shape[-1]):
            probe = jnp.pad(probe, ((0, 0), (0, fill), (0, fill)))
        out, weights, (kernel, bias) = attention(
            self._normed(x, probes, taps),
            tap in self.capture,
            probe,
            self.length,
            self.fuse,
        )
        if tap in self.capture:
            taps[tap] = weights
        factor = drop.get("space" if divided else "attention")
        cls = jax.lax.stop_gradient((out[:, 0], kernel, bias))
        out = scaled(product(out, kernel, bias), factor)
        if divided:
            x = add_to_patches(x, out, scaled(product(*cls), factor), self.num_frames)
        else:
            x = x + out
        out = Mlp(self.mlp_hidden, self.dtype, self.init_std, self.rules, name="mlp")(
            LayerNorm(self.dtype, self.rules, name="norm2").parts(x)
        )
        x = x + scaled(out, drop.get("mlp"))
        if "block" in probes:
            probe = probes["block"].astype(x.dtype)
            x = x + (frame_rows(probe, self.num_frames) if divided else probe)
        if "block" in self.capture:
            tokens = clip_tokens(x, self.num_frames) if divided else x
            taps["block"] = tokens.astype(jnp.float32)
        return x, taps

    def _normed(self, x: jax.Array, probes: dict, taps: dict) -> jax.Array | Normed:
        """Returns what attention along the rows reads."""
        norm = LayerNorm(self.dtype, self.rules, name="norm1")
        if "norm1" not in {*self.capture, *probes}:
            return norm.parts(x)
        tokens = norm(x)
        if "norm1" in probes:
            tokens = tokens + probes["norm1"].astype(tokens.dtype)
        if "norm1" in self.capture:
            taps["norm1"] = tokens.astype(jnp.float32)
        return tokens

    def _over_time(self, x: jax.Array, drop: dict, probes: dict, taps: dict) -> jax.Array:
        """Returns x [B*T, 1+N, D] after attention over time, which the cls tokens take no part in.

        They go through it, as one more position, and what it gives them is left out: to cut an
        array is dearer.
        """
        _, tokens, width = x.shape
        batch = len(x) // self.num_frames
        attention = TimeAttention(
            self.num_heads,
            self.dtype,
            normal_init(self.init_std),
            self.kernel,
            self.rules,
            name="temporal_attn",
        )
        tap = "attention_time"
        probe = probes.get(tap)
        if probe is not None:
            probe = probe.reshape(batch, -1, *probe.shape[1:])
            fill = tokens - 1 - probe.shape[1]
            probe = jnp.pad(probe, ((0, 0), (1, fill)) + ((0, 0),) * (probe.ndim - 2))
        normed = LayerNorm(self.dtype, self.rules, name="temporal_norm1").parts(x)
        out, weights, (kernel, bias) = attention(
            normed, self.num_frames, tap in self.capture, probe, self.fuse
        )
        if tap in self.capture:
            taps[tap] = weights[:, 1:].reshape(-1, *weights.shape[2:])
        # Zero at first, so that a fresh layer is the image model's.
        last = dense(width, self.dtype, "temporal_fc", std=0.0)
        last_kernel, last_bias = last.weights(width)
        factor = drop.get("time")
        # Two products in a row, with nothing but a factor for every token between: where there
        # are more tokens than features, their matrices are multiplied instead.
        if outnumber(x):
            bias = jnp.matmul(bias, last_kernel, precision="highest")
            kernel = jnp.matmul(kernel, last_kernel, precision="highest")
            if factor is None:
                out = product(out, kernel, bias + last_bias)
            else:
                out = scaled(product(out, kernel, bias), factor)
                out = out + last_bias.astype(out.dtype)[None, None]
        else:
            out = scaled(product(out, kernel, bias), factor)
            out = product(out, last_kernel, last_bias)
        return add_to_patches(x, out, None, self.num_frames)
