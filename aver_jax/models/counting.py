"""What a model costs: its parameters, and the multiply-adds of a call, counted in its jaxpr."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core


def parameter_count(variables: Mapping[str, Any]) -> int:
    """Returns the number of parameters of a model's variables (arrays or their shapes)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def multiply_adds(function: Callable[..., Any], *args: Any) -> int:
    """Returns the multiply-adds of the convolutions and matrix products in a function's jaxpr.

    Every output of a convolution counts its whole kernel, also where that lies over the padding;
    a loop counts its body once per round, a branch its most expensive case. Elementwise work
    (norms, activations, softmax) is not counted.

    Args:
      function: anything jax can trace.
      args: its arguments, or shapes and dtypes in their place.

    Raises:
      ValueError: a loop whose number of rounds is not fixed.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def forward_multiply_adds(model: Any, variables: Any, inputs: Any) -> int:
    """Returns the multiply-adds that a model's forward pass needs: as published, or else counted.

    Args:
      model: a network of this package.
      variables, inputs: of it, for one clip; shapes suffice.
    """
    if model.multiply_adds is not None:
        return model.multiply_adds
    return multiply_adds(lambda v, x: model.apply(v, x)[0], variables, inputs)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        # Per output channel: the kernel's window over the inputs of its group.
        window = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        return math.prod(equation.outvars[0].aval.shape) * window
    inner = [_of_jaxpr(jaxpr) for jaxpr in inner_jaxprs(params)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "cond":
        # Of what differs between platforms, the last is what all but the named ones do.
        return inner[-1] if params.get("branches_platforms") else max(inner)
    if name == "while" and sum(inner):
        raise ValueError("a loop without a fixed number of rounds cannot be counted")
    return sum(inner)


def inner_jaxprs(params: Mapping[str, Any]) -> Iterator[core.Jaxpr]:
    """Returns the jaxprs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
