"""The compiled functions of an experiment, from its config only: no dataset, no parameters."""

from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from aver_jax.errors import UserError
from aver_jax.evaluation.forward import compiled_forward
from aver_jax.input import ClipShape
from aver_jax.runs.run_folder import model_of
from aver_jax.runtime.data_parallel import AXIS, check_batch_size, make_mesh, replicated
from aver_jax.training.settings import StepSettings
from aver_jax.training.step import train_step

FUNCTIONS = ("train", "inference")


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


def compiled(config: ConfigDict, classes: int, function: str) -> jax.stages.Compiled:
    """Returns the train step or the forward pass, compiled for all devices of this machine.

    Args:
      config: the experiment.
      classes: number of classes.
      function: one of `FUNCTIONS`.

    Raises:
      UserError: a config that cannot be trained, or its batch does not fit the devices.
    """
    if config.parallel != "shard_map":
        raise UserError(
            f"config.parallel is {config.parallel!r}; the report compiles the step of shard_map, "
            "which does the same work: leave it out"
        )
    mesh = make_mesh()
    accumulate = config.optimizer.accumulate if function == "train" else 1
    check_batch_size(config.batch_size, mesh, accumulate)
    model = model_of(config, classes)
    # A schedule's epochs do not change what is compiled.
    training = train_step(model, StepSettings.from_config(config), 100, mesh)

    def placed(tree: Any, sharding: jax.sharding.Sharding) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    batch = placed(batch_shapes(config), NamedSharding(mesh, P(AXIS)))
    if function == "inference":
        forward = compiled_forward(model, config, mesh)
        variables = placed(training.shapes, replicated(mesh))
        return _compiled_afresh(forward.jitted.lower(variables, batch))
    seed = jax.ShapeDtypeStruct((), np.uint32)
    state = jax.eval_shape(training.init, training.shapes, seed)
    state = placed(state, replicated(mesh))
    return _compiled_afresh(training.step.jitted.lower(state, batch, None))


def _compiled_afresh(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Returns the function compiled now: one cached on disk has lost its source lines."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    # jax asks once whether there is a cache, and remembers.
    compilation_cache.reset_cache()
    try:
        return lowered.compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
