"""The train state: everything a step reads and writes, and a checkpoint keeps."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aver_jax.models.timesformer.unstacked import stacked, unstack_like


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a training.

    Unrolled layers are stored unstacked (`models.timesformer.unstacked.Layers`), moments and
    averages too. What leaves the state, for checkpoints and evaluation, has them stacked.

    Attributes:
      step: int32 [], optimizer updates done so far.
      variables: the model's collections: "params" and, for some models, "batch_stats".
      ema: moving average of the variables: averaged parameters need statistics to match. An empty
        dict if none is kept.
      opt_state: optax state.
      plateau: state of `optimizer.plateau`; its scale multiplies every update.
      seed: uint32 [], `config.seed`. It is data of the step and no constant in it, so that
        trainings that differ in it share one compiled step; a checkpoint need not hold it.
    """

    step: jax.Array
    variables: dict[str, Any]
    ema: dict[str, Any]
    opt_state: Any
    plateau: Any
    seed: jax.Array

    def items(self) -> dict[str, Any]:
        """Returns the state as the items of a checkpoint; the seed is the config's.

        Unstacked layers are stacked: for as long as the items are held, that is a
        second copy in memory. All else is the state's own, and the next step gives it away.
        """
        training = {"step": self.step, "opt_state": self.opt_state, "plateau": self.plateau}
        items = {"variables": self.variables, "training": training}
        if self.ema:
            statistics = {name: tree for name, tree in self.ema.items() if name != "params"}
            items["ema"] = self.ema["params"]
            items |= {"ema_statistics": statistics} if statistics else {}
        return stacked(items)

    @classmethod
    def from_items(
        cls, items: dict[str, Any], seed: jax.Array, example: "TrainState"
    ) -> "TrainState":
        """Returns the state that `items` was taken from; `example` has its structure."""
        ema = {"params": items["ema"], **items.get("ema_statistics", {})} if "ema" in items else {}
        state = cls(variables=items["variables"], ema=ema, seed=seed, **items["training"])
        return unstack_like(state, example)

    def evaluation_variables(self) -> dict[str, Any]:
        """Returns what evaluation applies: the moving average where one is kept."""
        return stacked(self.ema or self.variables)


def create_state(
    variables: dict[str, Any],
    optimizer: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
    ema_decay: float,
    seed: int,
) -> TrainState:
    """Returns the state before the first step."""
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        # A copy: the step donates its state, and one buffer cannot be given away twice.
        ema=jax.tree.map(jnp.copy, variables) if ema_decay else {},
        opt_state=optimizer.init(params),
        plateau=plateau.init(params),
        seed=jnp.asarray(seed, jnp.uint32),
    )
