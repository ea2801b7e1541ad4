"""Unstacked layers: an array each, which a training without a loop over layers keeps.

A model's layers of one kind are stacked on axis 0: so are their parameters in checkpoints, and a
loop over layers wants them so. A step whose loop is unrolled would take every layer's slice out of
the stack and put every gradient back into one, which costs copies of all parameters.
"""

import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, eq=False)
class Layers:
    """Unstacked layers in the place of their stack; a node of a pytree.

    Attributes:
      layers: one tree per layer, of arrays without the stack's first axis.
    """

    layers: tuple[Any, ...]


jax.tree_util.register_pytree_with_keys(
    Layers,
    lambda node: ([(jax.tree_util.SequenceKey(i), x) for i, x in enumerate(node.layers)], None),
    lambda _, layers: Layers(tuple(layers)),
)


def _is_layers(tree: Any) -> bool:
    return isinstance(tree, Layers)


# Compiled whole where no jitted function calls them: one by one, the layers of every shape would
# be a compiled function each.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def unstack(tree: Any, number: int) -> Layers:
    """Returns the `number` layers of a tree of arrays [number, ...]."""
    return Layers(tuple(jax.tree.map(operator.itemgetter(i), tree) for i in range(number)))


@functools.partial(jax.jit, inline=True)
def _stack(node: Layers) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *node.layers)


def stacked(tree: Any) -> Any:
    """Returns a tree with the stack of every `Layers` in its place."""
    return jax.tree.map(
        lambda node: _stack(node) if _is_layers(node) else node, tree, is_leaf=_is_layers
    )


def unstack_like(tree: Any, example: Any) -> Any:
    """Returns a tree with `Layers` wherever `example` has them: what `stacked` undoes."""

    def fit(wanted: Any, node: Any) -> Any:
        return unstack(node, len(wanted.layers)) if _is_layers(wanted) else node

    return jax.tree.map(fit, example, tree, is_leaf=_is_layers)
