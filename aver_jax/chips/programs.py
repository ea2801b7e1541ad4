"""The programs of an experiment from its config alone: no dataset, no parameters, any devices."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from aver_jax.chips.catalog import Target
from aver_jax.chips.estimate import Estimate, estimate
from aver_jax.chips.kernel_schedules import kernel_cycles
from aver_jax.errors import UserError
from aver_jax.evaluation.forward import compiled_forward
from aver_jax.frontend import evaluation_inputs
from aver_jax.input import ClipShape
from aver_jax.models import init_variables
from aver_jax.models.counting import forward_multiply_adds
from aver_jax.relevance.explain import methods_of, passes_of
from aver_jax.relevance.explain import traced as traced_relevance
from aver_jax.runs.run_folder import model_of
from aver_jax.runtime.data_parallel import AXIS, check_batch_size, make_mesh, replicated
from aver_jax.training.settings import StepSettings
from aver_jax.training.step import train_step

_PACKAGE = str(Path(__file__).resolve().parents[1])


class DoesNotFit(UserError):
    """The compiler found that a program needs more memory than a device has."""


def batch_shapes(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the arrays of one batch of `config.batch_size` clips, as shapes."""
    shapes = {
        **ClipShape.from_config(config.data).arrays,
        "label": ((), np.int32),
        "mask": ((), np.bool_),
        "row": ((), np.int32),
        "seed": ((), np.uint32),
    }
    return {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype)
        for name, (shape, dtype) in shapes.items()
    }


class Program(NamedTuple):
    """A program that is lowered for devices.

    Attributes:
      lowered: what is compiled.
      jaxpr: what was lowered.
      held: bytes that each device holds of it for sure: "parameters" (with the state of batch
        norm), "optimizer" (moments, averages; of training) and "batch".
    """

    lowered: jax.stages.Lowered
    jaxpr: Any
    held: dict[str, int]


def lowered(
    config: ConfigDict, classes: int, program: str, mesh: Mesh | None = None, method: str = ""
) -> Program:
    """Lowers a program for the devices of a mesh, which need not be there.

    Args:
      config: the experiment.
      classes: number of classes.
      program: one of `catalog.PROGRAMS`.
      mesh: of `make_mesh` or `catalog.make_topology_mesh`; default: all devices of this machine.
      method: of relevance; "" is the model's default.

    Raises:
      UserError: a config that cannot be trained, or whose batch does not fit the devices; pmap
        where it cannot be lowered; an unknown method.
    """
    if config.batch_size < 1:
        raise UserError(f"config.batch_size is {config.batch_size}; expected at least 1")
    if method and program != "relevance":
        raise UserError(f"--method {method} is of relevance; add --program relevance")
    mesh = mesh or make_mesh()
    accumulate = config.optimizer.accumulate if program == "train" else 1
    check_batch_size(config.batch_size, mesh, accumulate)
    model = model_of(config, classes)
    # A schedule's epochs do not change what is compiled.
    training = train_step(model, StepSettings.from_config(config), 100, mesh)
    batch = _placed(batch_shapes(config), NamedSharding(mesh, P(AXIS)))
    variables = _placed(training.shapes, replicated(mesh))
    held = {"parameters": _bytes(variables), "batch": _bytes(batch) // mesh.size}
    if program == "inference":
        return _lowered(compiled_forward(model, config, mesh).jitted, (variables, batch), held)
    if program == "relevance":
        method = method or methods_of(model)[0]
        if method not in methods_of(model):
            raise UserError(
                f"--method is {method!r}; a {type(model).__name__} is explained by "
                f"{', '.join(methods_of(model))}"
            )
        inputs = jax.eval_shape(lambda b: evaluation_inputs(config, b), batch)
        inputs = _placed(inputs, NamedSharding(mesh, P(AXIS)))
        held["batch"] = _bytes(inputs) // mesh.size
        traced = traced_relevance(model, variables, inputs, method)
        return Program(traced.lower(), traced.jaxpr, held)
    state = jax.eval_shape(training.init, training.shapes, jax.ShapeDtypeStruct((), np.uint32))
    held["optimizer"] = _bytes(state) - held["parameters"]
    step = training.step
    if config.parallel == "pmap":
        try:
            split = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((mesh.size, x.shape[0] // mesh.size, *x.shape[1:]),
                                               x.dtype),
                batch,
            )  # fmt: skip
            jaxpr = jax.make_jaxpr(step.pmapped)(state, split, None)
            return Program(step.pmapped.lower(state, split, None), jaxpr, held)
        except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                "config.parallel is 'pmap', which jax does not lower for these devices "
                f"({reason}); take shard_map, which does the same work"
            ) from error
    return _lowered(step.jitted, (_placed(state, replicated(mesh)), batch, None), held)


def _lowered(function: Any, arguments: tuple[Any, ...], held: dict[str, int]) -> Program:
    traced = function.trace(*arguments)
    return Program(traced.lower(), traced.jaxpr, held)


def needed_flops(config: ConfigDict, classes: int, program: str, method: str = "") -> int:
    """Returns the FLOPs that a call needs: two per multiply-add of products and convolutions.

    Of the explicit attention, without recomputation; elementwise work counts nothing. Training is
    three forward passes; of relevance `relevance.passes_of` says.
    """
    model = model_of(config, classes)
    one = ConfigDict(config.to_dict())
    one.batch_size = 1
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    inputs = jax.eval_shape(lambda b: evaluation_inputs(config, b), batch_shapes(one))
    forward = forward_multiply_adds(model, variables, inputs)
    passes = {"train": 3, "inference": 1}.get(program) or passes_of(method or methods_of(model)[0])
    return 2 * passes * forward * config.batch_size


def estimated(
    config: ConfigDict, classes: int, program: str, target: Target, mesh: Mesh, method: str = ""
) -> Estimate:
    """Returns what a program costs on the devices of a mesh; arguments as of `lowered`.

    Raises:
      UserError: as `lowered`, or what cannot be compiled for these devices.
      DoesNotFit: the compiler says that the program needs more memory than a device has.
    """
    try:
        found = lowered(config, classes, program, mesh, method)
        needed = needed_flops(config, classes, program, method)
        compiled = compiled_afresh(found.lowered)
        kernels = kernel_cycles(found.jaxpr, target) if target.chip.clock else {}
    except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        if "RESOURCE_EXHAUSTED" in reason:
            raise DoesNotFit(
                f"{config.batch_size} clips do not fit into {target} ({reason}); take fewer, or "
                "ask for --largest-batch"
            ) from error
        raise UserError(f"{program} cannot be compiled for {target} ({reason})") from error
    dtype = str(config.model.dtype)
    return estimate(
        compiled, target, needed, config.batch_size, dtype, found.held, is_ours, kernels
    )


def is_ours(file: str) -> bool:
    """Returns whether a source file belongs to this package, not to a library below it."""
    return file.startswith(_PACKAGE)


def compiled_afresh(found: jax.stages.Lowered) -> jax.stages.Compiled:
    """Returns the function compiled now: one cached on disk has lost its source lines."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    # jax asks once whether there is a cache, and remembers.
    compilation_cache.reset_cache()
    try:
        return found.compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _placed(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
