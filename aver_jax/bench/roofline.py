"""The roofline bound of a case: its FLOPs and bytes, the device's rates, and the least time.

A roofline (Williams, Waterman & Patterson 2009) with measured rates instead of those of a data
sheet. FLOPs are two per multiply-add of convolutions and matrix products; a training step counts
as three forward passes, relevance as two (forward, and backward to activations only).
Recomputation (remat) is not counted.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from aver_jax.bench.cases import Case
from aver_jax.bench.timing import seconds_of_calls
from aver_jax.bench.worker.inputs import batch_shapes, case_config, case_model
from aver_jax.frontend import evaluation_inputs
from aver_jax.models.counting import forward_multiply_adds
from aver_jax.training.step import make_loss

# Forward passes that a call of the task costs.
_PASSES = {"train": 3, "inference": 1, "relevance": 2}
# Bytes per float32 parameter: read by the forward and by the backward pass; the gradient written,
# read for its norm and by the update; AdamW reads and writes the parameter and its two moments.
_PARAMETER_TRAFFIC = {"train": 4 * (2 + 3 + 6), "inference": 4, "relevance": 8}

Shapes = Mapping[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Rates:
    """The best rates of one device.

    Attributes:
      matmul: FLOP/s of a large product of random matrices, by dtype. (Zeros draw less power and
        run faster on a GPU.)
      copy: bytes/s, read and written together.
    """

    matmul: dict[str, float]
    copy: float


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of a call.

    Attributes:
      seconds: the larger of the two below.
      compute: seconds of its FLOPs at the matmul rate.
      memory: seconds of its bytes at the copy rate.
      binds: "FLOPs" or "bytes", whichever takes longer.
    """

    seconds: float
    compute: float
    memory: float
    binds: str


def roofline_bound(flops: float, moved: float, dtype: str, rates: Rates) -> Bound:
    """Returns the least time of a call that needs these FLOPs and moves these bytes."""
    compute = flops / rates.matmul[dtype]
    memory = moved / rates.copy
    binds = "FLOPs" if compute >= memory else "bytes"
    return Bound(max(compute, memory), compute, memory, binds)


def rates_from_dict(fields: Mapping[str, Any]) -> Rates:
    """Returns the rates that `dataclasses.asdict` gave, also when they went through JSON."""
    return Rates(dict(fields["matmul"]), fields["copy"])


def faster(one: Rates, other: Rates) -> Rates:
    """Returns the better of two measurements of each rate."""
    return Rates(
        {dtype: max(rate, other.matmul[dtype]) for dtype, rate in one.matmul.items()},
        max(one.copy, other.copy),
    )


def measured_rates(dtypes: Sequence[str], repeats: int = 7) -> Rates:
    """Returns the rates of the first device; takes a few seconds."""
    return Rates({dtype: _matmul_rate(dtype, repeats) for dtype in dtypes}, _copy_rate(repeats))


def flops(case: Case) -> int:
    """Returns the FLOPs of a call; 0 for the front end and the input, which are bound by bytes.

    Counted for one clip with explicit attention.
    """
    if not case.has_model:
        return 0
    forward = forward_multiply_adds(case_model(case), _variables(case), _inputs(case, clips=1))
    return 2 * _PASSES[case.task] * forward * case.batch_size


def least_bytes(case: Case) -> dict[str, int]:
    """Returns the bytes that a call must move through memory, by kind.

    "inputs" and "outputs" once each; "parameters" with gradients and the state of AdamW; for
    training "residuals", the activations kept for the backward pass, written and read once; for
    relevance "attention", every map and its gradient, written and read once.
    """
    batch = batch_shapes(case, case.batch_size)
    moved = {"inputs": _size(batch)}
    if case.task == "spectrogram":
        return moved | {"outputs": _size(_inputs(case, case.batch_size))}
    if case.task == "augmentation":
        return moved | {"outputs": 4 * math.prod(batch["frames"].shape)}
    if not case.has_model:
        return moved
    variables = _variables(case)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    moved["parameters"] = _PARAMETER_TRAFFIC[case.task] * parameters
    if case.task == "train":
        moved["residuals"] = 2 * _residual_bytes(case, variables, batch)
    elif case.task == "relevance":
        shapes = case_model(case).tap_shapes(case.batch_size)
        maps = sum(math.prod(s) for name, s in shapes.items() if name.startswith("attention"))
        moved["attention"] = 2 * 2 * 4 * maps
    return moved


def xla_flops(case: Case) -> float:
    """Returns XLA's own count of a model's call, front end included, to compare with `flops`.

    XLA also counts elementwise work and recomputation. The count is taken before optimisation,
    since matrix products that became library calls are not counted afterwards.
    """
    variables, batch = _variables(case), batch_shapes(case, case.batch_size)
    config, model = case_config(case), case_model(case)
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
    """Returns the FLOPs of a function by XLA's cost analysis, every iteration of its loops.

    XLA counts the body of a loop once, however often it runs: the other iterations are added.

    Args:
      function: anything jax can trace.
      args: its arguments, or shapes and dtypes in their place.
    """
    return _lowered_flops(function, *args) + _uncounted_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _lowered_flops(function: Callable[..., Any], *args: Any) -> float:
    return float((jax.jit(function).lower(*args).cost_analysis() or {}).get("flops", 0.0))


def _uncounted_flops(jaxpr: core.Jaxpr) -> float:
    """Returns FLOPs of the loop iterations that XLA's count leaves out."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [item for value in equation.params.values() for item in _jaxprs(value)]
        uncounted = sum(_uncounted_flops(closed.jaxpr) for closed in inner)
        if equation.primitive.name == "scan":
            length = equation.params["length"]
            unroll = min(equation.params["unroll"], length)
            # A loop of `unroll` iterations at a time, and the remainder after it.
            counted = unroll + length % unroll if unroll else 0
            body = equation.params["jaxpr"]
            shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in body.jaxpr.invars]
            once = _lowered_flops(core.jaxpr_as_fun(body), *shapes)
            uncounted = uncounted * length + (length - counted) * once
        total += uncounted
    return total


def _jaxprs(value: Any) -> Iterator[core.ClosedJaxpr]:
    for item in value if isinstance(value, tuple | list) else (value,):
        if isinstance(item, core.ClosedJaxpr):
            yield item
        elif isinstance(item, core.Jaxpr):
            yield core.ClosedJaxpr(item, ())


def _residual_bytes(case: Case, variables: Mapping[str, Any], batch: Shapes) -> int:
    """Returns bytes kept for the backward pass, besides parameters and the batch."""
    loss = make_loss(case_model(case), case_config(case))
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def pullback(params, rest, batch):
        return jax.vjp(lambda p: loss(p, rest, batch, jnp.uint32(0)), params, has_aux=True)[1]

    jaxpr = jax.make_jaxpr(pullback)(variables["params"], rest, batch).jaxpr
    given = set(jaxpr.invars)
    kept = {v for v in jaxpr.outvars if isinstance(v, core.Var) and v not in given}
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in kept)


def _variables(case: Case) -> Any:
    model = case_model(case)
    return jax.eval_shape(
        lambda: model.init(
            jax.random.key(0),
            {n: jnp.zeros(s.shape, s.dtype) for n, s in model.input_shapes(1).items()},
        )
    )


def _inputs(case: Case, clips: int) -> Shapes:
    config = case_config(case)
    return jax.eval_shape(lambda b: evaluation_inputs(config, b), batch_shapes(case, clips))


def _size(shapes: Shapes) -> int:
    return sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in shapes.values())


def _on_cpu() -> bool:
    return jax.devices()[0].platform == "cpu"


def _matmul_rate(dtype: str, repeats: int) -> float:
    size, products = (2048, 1) if _on_cpu() else (8192, 8)
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (size, size), dtype) for key in keys)
    # Scaled, so that a chain of products neither grows nor vanishes.
    right = (right * size**-0.5).astype(dtype)

    @jax.jit
    def chain(left, right):
        for _ in range(products):
            left = left @ right
        return left

    return 2 * products * size**3 / _median_seconds(lambda: chain(left, right), repeats)


def _copy_rate(repeats: int) -> float:
    # Larger than any cache.
    elements = 2**26 if _on_cpu() else 2**29
    values = jax.random.normal(jax.random.key(0), (elements,), "float32")
    # An unchanged copy might be optimised away.
    negated = jax.jit(jnp.negative)
    return 2 * values.nbytes / _median_seconds(lambda: negated(values), repeats)


def _median_seconds(call: Callable[[], Any], repeats: int) -> float:
    # The first call compiles.
    return statistics.median(
        seconds_of_calls(lambda: jax.block_until_ready(call()), repeats + 1)[1:]
    )
