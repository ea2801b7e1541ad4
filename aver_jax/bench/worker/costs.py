"""What a case costs at least: its FLOPs and the bytes that it cannot avoid moving; and XLA's count.

FLOPs are two for each multiply-add of a convolution or matrix product, three forward passes for a
training step, two for relevance (forward, and backward to activations alone). Recomputation (remat)
is no work of the case and not counted.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from aver_jax.bench.cases import Case
from aver_jax.bench.worker.inputs import experiment, has_model, made_up_shapes
from aver_jax.bench.worker.inputs import model_of_case as model_of
from aver_jax.frontend import evaluation_inputs
from aver_jax.models.counting import multiply_adds
from aver_jax.training.step import make_loss

# Forward passes that a call of the task is worth.
_PASSES = {"train": 3, "inference": 1, "relevance": 2}
# Bytes per float32 parameter: read by the forward and by the backward pass; the gradient written,
# read for its norm and by the update; AdamW reads and writes the parameter and its two moments.
_PARAMETER_TRAFFIC = {"train": 4 * (2 + 3 + 6), "inference": 4, "relevance": 8}

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def flops(case: Case) -> int:
    """Returns the FLOPs of a call; 0 of the front end and the input, which bytes bound.

    Counted in the program of one clip with its attention explicit: a fused kernel is no matrix
    product to the counter.
    """
    if not has_model(case):
        return 0
    model, inputs = model_of(case), _inputs(case, clips=1)
    attention = tuple(name for name in _taps(model) if name.startswith("attention"))
    forward = multiply_adds(
        lambda variables, inputs: model.apply(variables, inputs, capture=attention)[0],
        _variables(case),
        inputs,
    )
    return 2 * _PASSES[case.task] * forward * case.batch_size


def least_bytes(case: Case) -> dict[str, int]:
    """Returns the bytes that a call moves through memory at least, by what they are.

    "inputs" and "outputs" once each; "parameters" with gradients and the state of AdamW; of a
    training, "residuals": what the backward pass of this program wants of the forward pass, written
    once and read once; of relevance "attention": every map and its gradient, written and read.
    Whatever else goes through memory is what a better program could spare.
    """
    batch = made_up_shapes(case, case.batch_size)
    moved = {"inputs": _size(batch)}
    if case.task == "spectrogram":
        return moved | {"outputs": _size(_inputs(case, case.batch_size))}
    if case.task == "augmentation":
        return moved | {"outputs": 4 * math.prod(batch["frames"].shape)}
    if not has_model(case):
        return moved
    variables = _variables(case)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    moved["parameters"] = _PARAMETER_TRAFFIC[case.task] * parameters
    if case.task == "train":
        moved["residuals"] = 2 * _residual_bytes(case, variables, batch)
    elif case.task == "relevance":
        shapes = _taps(model_of(case), case.batch_size)
        maps = sum(math.prod(s) for name, s in shapes.items() if name.startswith("attention"))
        moved["attention"] = 2 * 2 * 4 * maps
    return moved


def xla_flops(case: Case) -> float:
    """Returns XLA's own count of a model's call, for comparison with `flops`; front end included.

    XLA counts elementwise work too, and what is computed again; of a program before its
    optimisation, since matrix products that became calls of a library are not counted afterwards.
    """
    variables, batch = _variables(case), made_up_shapes(case, case.batch_size)
    config, model = experiment(case), model_of(case)
    if case.task == "train":
        loss = make_loss(model, config)
        rest = {name: tree for name, tree in variables.items() if name != "params"}

        def call(params, rest, batch):
            return jax.grad(lambda p: loss(p, rest, batch, jnp.uint32(0))[0])(params)

        return counted_by_xla(call, variables["params"], rest, batch)
    if case.task == "inference":
        return counted_by_xla(
            lambda v, b: model.apply(v, evaluation_inputs(config, b))[0], variables, batch
        )
    raise ValueError(f"XLA's count of {case.task} is not compared")


def counted_by_xla(function: Callable[..., Any], *args: Any) -> float:
    """Returns the FLOPs of a function's program by XLA's cost analysis, every round of its loops.

    XLA counts the body of a loop once, however often it runs: what the other rounds cost is added.

    Args:
      function: anything jax can trace.
      args: its arguments, or shapes and dtypes in their place.
    """
    program = jax.make_jaxpr(function)(*args)
    return _lowered_flops(function, *args) + _further_rounds(program.jaxpr)


def _lowered_flops(function: Callable[..., Any], *args: Any) -> float:
    return float((jax.jit(function).lower(*args).cost_analysis() or {}).get("flops", 0.0))


def _further_rounds(jaxpr: core.Jaxpr) -> float:
    """FLOPs of the rounds that XLA's count of a program leaves out."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [item for value in equation.params.values() for item in _programs(value)]
        further = sum(_further_rounds(program.jaxpr) for program in inner)
        if equation.primitive.name == "scan":
            length, unroll = (
                equation.params["length"],
                min(equation.params["unroll"], equation.params["length"]),
            )
            # A loop of `unroll` rounds at a time, and what is left over after it.
            seen = unroll + length % unroll if unroll else 0
            body = equation.params["jaxpr"]
            shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in body.jaxpr.invars]
            once = _lowered_flops(core.jaxpr_as_fun(body), *shapes)
            further = further * length + (length - seen) * once
        total += further
    return total


def _programs(value: Any) -> Iterator[core.ClosedJaxpr]:
    for item in value if isinstance(value, tuple | list) else (value,):
        if isinstance(item, core.ClosedJaxpr):
            yield item
        elif isinstance(item, core.Jaxpr):
            yield core.ClosedJaxpr(item, ())


def _residual_bytes(case: Case, variables: Mapping[str, Any], batch: Shapes) -> int:
    """Bytes that the forward pass keeps for the backward pass, beside parameters and the batch."""
    loss = make_loss(model_of(case), experiment(case))
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def pullback(params, rest, batch):
        return jax.vjp(lambda p: loss(p, rest, batch, jnp.uint32(0)), params, has_aux=True)[1]

    program = jax.make_jaxpr(pullback)(variables["params"], rest, batch).jaxpr
    given = set(program.invars)
    kept = {v for v in program.outvars if isinstance(v, core.Var) and v not in given}
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in kept)


def _variables(case: Case) -> Any:
    model = model_of(case)
    return jax.eval_shape(
        lambda: model.init(
            jax.random.key(0),
            {n: jnp.zeros(s.shape, s.dtype) for n, s in model.input_shapes(1).items()},
        )
    )


def _inputs(case: Case, clips: int) -> Shapes:
    config = experiment(case)
    return jax.eval_shape(lambda b: evaluation_inputs(config, b), made_up_shapes(case, clips))


def _taps(model: Any, clips: int = 1) -> dict[str, tuple[int, ...]]:
    return model.tap_shapes(clips) if hasattr(model, "tap_shapes") else {}


def _size(shapes: Shapes) -> int:
    return sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in shapes.values())
