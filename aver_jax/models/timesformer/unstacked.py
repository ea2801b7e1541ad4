"""Stacked layers as arrays of their own, which a training without a loop over them keeps.

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
    """Layers that stand in a tree where their stack stood; a node of a pytree.

    Attributes:
      parts: one tree per layer, of arrays without the stack's first axis.
    """

    parts: tuple[Any, ...]


jax.tree_util.register_pytree_with_keys(
    Layers,
    lambda layers: ([(jax.tree_util.SequenceKey(i), x) for i, x in enumerate(layers.parts)], None),
    lambda _, parts: Layers(tuple(parts)),
)


def _is_layers(tree: Any) -> bool:
    return isinstance(tree, Layers)


# Compiled whole where they are not part of a program: one by one, the layers of every shape would
# be a program each.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def taken_apart(tree: Any, number: int) -> Layers:
    """Return the `number` layers of a tree of arrays [number, ...]."""
    return Layers(tuple(jax.tree.map(operator.itemgetter(i), tree) for i in range(number)))


@functools.partial(jax.jit, inline=True)
def _stack(layers: Layers) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *layers.parts)


def stacked(tree: Any) -> Any:
    """Return a tree with the stack of every `Layers` in its place."""
    return jax.tree.map(
        lambda node: _stack(node) if _is_layers(node) else node, tree, is_leaf=_is_layers
    )


def taken_apart_like(tree: Any, example: Any) -> Any:
    """Return a tree with `Layers` wherever `example` has them: what `stacked` undoes."""

    def fit(wanted: Any, node: Any) -> Any:
        return taken_apart(node, len(wanted.parts)) if _is_layers(wanted) else node

    return jax.tree.map(fit, example, tree, is_leaf=_is_layers)
