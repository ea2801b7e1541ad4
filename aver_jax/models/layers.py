"""Dense layer and LayerNorm over the last axis, with float32 parameters."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# The plain forms are those of `functions`; these have the same values and faster gradients.
from aver_jax.models.custom_gradients import affine
from aver_jax.models.gradient_rules import TRUE, GradientRules

# What a policy of jax.checkpoint calls the results of dense layers.
PRODUCT = "product"


def outnumber(x: jax.Array) -> bool:
    """Returns whether tokens x [..., D] are so many that work on [D, D] is small beside theirs."""
    return x.size >= 2 * x.shape[-1] ** 2


def product(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Returns x @ kernel + bias [..., O] in the dtype of x [..., D]."""
    return checkpoint_name(affine(x, kernel, bias), PRODUCT)


class Normed(NamedTuple):
    """A LayerNorm's result in two parts: its value is `unit * scale + bias`.

    A dense layer multiplies scale and bias into its own weights: they then cost nothing on arrays
    of the tokens' size, forward or backward.

    Attributes:
      unit: [..., D], of mean 0 and variance 1 over D.
      scale, bias: float32 [D].
    """

    unit: jax.Array
    scale: jax.Array
    bias: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        return self.unit.shape


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

    def __call__(self, x: jax.Array | Normed) -> jax.Array:
        """Maps x [..., D] to [..., features]."""
        return product(*self.folded(x))

    def folded(self, x: jax.Array | Normed) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns x without what a norm multiplies and adds, and the weights that then serve."""
        kernel, bias = self.weights(x.shape[-1])
        if isinstance(x, Normed):
            bias = bias + jnp.matmul(x.bias, kernel, precision="highest")
            x, kernel = x.unit, x.scale[:, None] * kernel
        return x.astype(self.dtype), kernel, bias

    @nn.compact
    def weights(self, size: int) -> tuple[jax.Array, jax.Array]:
        """Returns kernel [size, features] and bias [features], float32."""
        kernel = self.param("kernel", self.kernel_init, (size, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), with float32 statistics.

    Parameters `scale` and `bias`, float32 [D], as flax.linen.LayerNorm's; `dtype` is the result's,
    `rules` say what its gradient is.
    """

    dtype: Any
    rules: GradientRules = TRUE

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [..., D]."""
        return self.rules.layer_norm(x, *self.weights(x.shape[-1])).astype(self.dtype)

    def parts(self, x: jax.Array) -> Normed | jax.Array:
        """Returns the result for x [..., D] in two parts, for a dense layer (`Normed`).

        In one where there are few tokens: the layer's weights are then larger than they.
        """
        if outnumber(x):
            return Normed(self.rules.standardized(x).astype(self.dtype), *self.weights(x.shape[-1]))
        return self(x)

    @nn.compact
    def weights(self, size: int) -> tuple[jax.Array, jax.Array]:
        """Returns scale and bias, float32 [size]."""
        scale = self.param("scale", nn.initializers.ones, (size,))
        return scale, self.param("bias", nn.initializers.zeros, (size,))
