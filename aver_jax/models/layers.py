"""Dense layer and LayerNorm over the last axis, with float32 parameters."""

from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

# The plain forms are those of `functions`; these have the same values and faster gradients.
from aver_jax.models.custom_gradients import affine, layer_norm

# What a policy of jax.checkpoint calls the results of dense layers.
PRODUCT = "product"


class Dense(nn.Module):
    """x @ kernel + bias over the last axis, as flax.linen.Dense, whose parameters it has.

    Fields:
      features: size of the result's last axis.
      dtype: of the product and the result; the parameters' gradients are summed in float32.
      kernel_init: initializer of `kernel` [D, features]; `bias` [features] starts at 0.
    """

    features: int
    dtype: Any
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [..., D] to [..., features]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return checkpoint_name(affine(x.astype(self.dtype), kernel, bias), PRODUCT)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), with float32 statistics.

    Parameters `scale` and `bias`, float32 [D], as flax.linen.LayerNorm's; `dtype` is the result's.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [..., D]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias).astype(self.dtype)
