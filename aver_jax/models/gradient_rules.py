"""Other gradients for a network's functions, with which relevance is propagated; values stay.

Relevance of a linear layer y = W x + b is x (W^T g), g = R_y / y (the epsilon rule of layer-wise
relevance propagation, epsilon 0): relevance divided by values goes backward as a gradient does. A
rule for another function is then a gradient in the place of its own, and the relevance of the input
is x g, of one pullback.

    y = f(x), a gate as GELU      g_x = g_y f(x) / x        the gate f(x) / x is a constant
    LayerNorm                     the division is by a constant; centring, scale, bias are linear
    y = a b, products             g_a = g_y b / 2, g_b = g_y a / 2: half to each; or all to one
    softmax                       its gradient
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aver_jax.models import custom_gradients, functions


class GradientRules(NamedTuple):
    """Which gradients a TimeSformer has; the default is the true one.

    Attributes:
      constant_gates: whether LayerNorm's denominator and GELU's gate have no gradient.
      scores: what the gradients of queries and keys are multiplied by; 0: attention is a constant.
      values: what the gradient of values is multiplied by.
      layers_apart: whether a layer's gradient stays in it, so that a tap of a layer is a function
        of that layer alone.
    """

    constant_gates: bool = False
    scores: float = 1
    values: float = 1
    layers_apart: bool = False

    def standardized(self, x: jax.Array) -> jax.Array:
        """Returns `functions.standardized` of x [..., D], float32."""
        if not self.constant_gates:
            return custom_gradients.standardized(x)
        mean, factor = functions.layer_norm_statistics(x)
        return (x.astype(jnp.float32) - mean) * jax.lax.stop_gradient(factor)

    def layer_norm(self, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        """Returns `functions.layer_norm` of x [..., D], float32."""
        if not self.constant_gates:
            return custom_gradients.layer_norm(x, scale, bias)
        along_last = functions.along_last
        return self.standardized(x) * along_last(scale, x) + along_last(bias, x)

    def gelu(self, x: jax.Array) -> jax.Array:
        """Returns `functions.gelu` of x, of x's dtype."""
        if not self.constant_gates:
            return custom_gradients.gelu(x)
        wide = x.astype(jnp.float32)
        gate = jax.lax.stop_gradient(functions.normal_distribution(wide))
        return (wide * gate).astype(x.dtype)

    def attended(
        self, q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns q, k and v as attention is given them."""
        return (
            _with_gradient(q, self.scores),
            _with_gradient(k, self.scores),
            _with_gradient(v, self.values),
        )


def _with_gradient(x: jax.Array, factor: float) -> jax.Array:
    """Returns x, whose gradient is multiplied by a factor."""
    if factor == 1:
        return x
    return jax.lax.stop_gradient(x) if factor == 0 else _scaled_gradient(x, factor)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _scaled_gradient(x: jax.Array, factor: float) -> jax.Array:
    del factor
    return x


_scaled_gradient.defvjp(
    lambda x, factor: (x, None), lambda factor, kept, gradient: (factor * gradient,)
)

#: Gradients that training has.
TRUE = GradientRules()

#: LibraGrad (Mehri et al. 2024): gates, denominators and attention are constants.
LIBRA = GradientRules(constant_gates=True, scores=0)

#: AttnLRP (Achtibat et al. 2024): attention's product halves the gradient of the weights and of the
#: values, that of queries and keys what is left of it.
ATTN_LRP = GradientRules(constant_gates=True, scores=1 / 4, values=1 / 2)

#: LeGrad (Bousselham et al. 2024): every layer's score is of that layer's attention.
LAYERS_APART = GradientRules(layers_apart=True)
