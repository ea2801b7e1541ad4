"""The compiled training step, built once in a process for equal settings.

A training of another fold or seed, or on another dataset of equal size, runs the programs of the
first: nothing is traced or compiled again. A program is built from the config's fields that are
part of its key and from no others, so it cannot depend on anything that its key leaves out.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from aver_jax.config import to_json
from aver_jax.models import init_variables, layers_apart
from aver_jax.runtime.mesh import map_step
from aver_jax.training.optimizer import (
    check_freeze,
    learning_rate,
    make_optimizer,
    make_plateau_update,
    plateau,
)
from aver_jax.training.state import TrainState, create_state
from aver_jax.training.step import make_gradients, make_update

_TRAINING = (
    "frontend", "label_smoothing", "optimizer", "schedule", "epochs", "freeze", "ema_decay",
    "parallel",
)  # fmt: skip
# Compiled programs stay in memory: enough for the networks of a study, one after the other.
_KEPT = 16


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training runs, and what belongs to it.

    Attributes:
      shapes: the model's variables as shapes.
      schedule: step -> learning rate.
      create: `(variables, seed) -> TrainState` before the first step.
      steps: `(layout, K) -> step`, where `step(state, host batch, resident) -> (state, metrics)` is
        that of `map_step`; it gives the old state's memory away. Equal arguments give the
        same function.
      after_validation: `(plateau state, validation loss) -> plateau state`.
    """

    shapes: dict[str, Any]
    schedule: optax.Schedule
    create: Callable[[dict[str, Any], Any], TrainState]
    steps: Callable[[str | None, int], Callable[..., tuple[TrainState, dict[str, jax.Array]]]]
    after_validation: Callable[[Any, Any], Any]

    @property
    def step(self) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
        """One step of a whole batch from the host: `(state, batch) -> (state, metrics)`."""
        return self.steps(None, 1)


def training(
    model: Any, config: ConfigDict, steps_per_epoch: int, mesh: jax.sharding.Mesh
) -> Training:
    """Returns the programs that train a model.

    Args:
      model: a flax module, compared by its fields.
      config: the experiment.
      steps_per_epoch: what the schedule's epochs are in steps.
      mesh: from `make_mesh`.

    Raises:
      UserError: `config.freeze` names nothing of the model.
    """
    return _training(model, _fields(config, _TRAINING), steps_per_epoch, mesh)


def _fields(config: ConfigDict, names: tuple[str, ...]) -> str:
    plain = to_json(config)
    return json.dumps({name: plain[name] for name in names}, sort_keys=True)


@functools.lru_cache(_KEPT)
def _training(model: Any, fields: str, steps_per_epoch: int, mesh: jax.sharding.Mesh) -> Training:
    config = ConfigDict(json.loads(fields))
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    check_freeze({"params": shapes["params"]}, tuple(config.freeze))
    schedule = learning_rate(config, steps_per_epoch)
    rule = make_optimizer(config, schedule)
    gradients, update = make_gradients(model, config), make_update(rule, config)

    @functools.cache
    def steps(layout: str | None, count: int):
        return map_step(gradients, update, mesh, config.parallel, layout=layout, steps=count)

    return Training(
        shapes=shapes,
        schedule=schedule,
        # Compiled whole: one by one, the zeros of every shape would be a program each.
        create=jax.jit(
            lambda variables, seed: create_state(
                layers_apart(model, variables),
                rule,
                plateau(config),
                config.ema_decay,
                seed,
            )
        ),
        steps=steps,
        after_validation=jax.jit(make_plateau_update(config)),
    )
