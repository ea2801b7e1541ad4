"""Convolutions before the patches: what few clips teach a small transformer sooner."""

import functools
from typing import Any

import flax.linen as nn
import jax

from aver_jax.models.gradient_rules import TRUE, GradientRules


class ConvStem(nn.Module):
    """Convolutions of 3 x 3 and stride 2 with GELU after each (Xiao et al. 2021).

    The patches that follow are smaller by the same factor, so that their grid stays as it is.
    What a cell sees is centred half a pixel from the cell's own centre, whatever the depth: the
    last convolution is padded on the other side than those before it. Padded on the same sides,
    three would shift relevance maps by 3.5 pixels.

    Fields:
      depth: number of convolutions; each halves height and width.
      width: channels of the last one; each one before it has half as many.
      dtype: of the computation.
      rules: what the gradient of GELU is.
    """

    depth: int
    width: int
    dtype: Any
    rules: GradientRules = TRUE

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        """Maps frames [B, T, H, W, 3] to [B, T, H / 2^depth, W / 2^depth, width]."""
        batch, length = frames.shape[:2]
        x = frames.reshape(batch * length, *frames.shape[2:]).astype(self.dtype)
        gelu = functools.partial(jax.nn.gelu, approximate=False)
        gelu = self.rules.gelu if self.rules.constant_gates else gelu
        for index in range(self.depth):
            x = nn.Conv(
                max(1, self.width >> (self.depth - 1 - index)),
                (3, 3),
                strides=2,
                padding=((1, 0),) * 2 if index == self.depth - 1 else ((0, 1),) * 2,
                kernel_init=nn.initializers.he_normal(),
                dtype=self.dtype,
                name=f"conv{index + 1}",
            )(x)
            x = gelu(x)
        return x.reshape(batch, length, *x.shape[1:])
