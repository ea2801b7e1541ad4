"""Optimizer and learning-rate schedule: from config to optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aver_jax.errors import UserError
from aver_jax.models.param_paths import frozen_mask

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "constant", "plateau")


def decay_mask(params: Any) -> Any:
    """Returns a tree of bools: True where weight decay applies.

    Kernels alone decay: biases, norms' scales, cls token, position and time embeddings do not.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def check_freeze(trees: dict[str, Any], patterns: tuple[str, ...]) -> None:
    """Raises UserError for a pattern that matches nothing in any of the trees."""
    for pattern in patterns:
        if not any(any(jax.tree.leaves(frozen_mask(t, (pattern,)))) for t in trees.values()):
            top = ", ".join(sorted({key for tree in trees.values() for key in tree}))
            raise UserError(
                f"config.freeze pattern {pattern!r} matches no parameter; the top level has: {top}"
            )


def learning_rate(config: Any, steps_per_epoch: int) -> optax.Schedule:
    """Returns the schedule step -> learning rate: linear warm-up, then constant or cosine to 0.

    Under "plateau" the rate is constant after warm-up; the scale of `plateau` multiplies it.
    """
    peak, name = config.optimizer.lr, config.schedule.name
    total = max(1, round(config.epochs * steps_per_epoch))
    warmup = min(round(config.schedule.warmup_epochs * steps_per_epoch), total)
    if name == "cosine":
        after = optax.cosine_decay_schedule(peak, max(1, total - warmup))
    else:
        after = optax.constant_schedule(peak)
    # Starts at one warm-up step's worth, not at zero: no step is wasted.
    start = peak / max(1, warmup)
    return optax.join_schedules([optax.linear_schedule(start, peak, warmup), after], [warmup])


def plateau(config: Any) -> optax.GradientTransformationExtraArgs:
    """Returns the rule that scales the rate down when the validation loss stops falling.

    Its state's `scale` multiplies every update; `make_plateau_update` advances it (thesis 5.3.2:
    halved after 10 epochs without improvement).
    """
    return optax.contrib.reduce_on_plateau(
        factor=config.schedule.plateau_factor, patience=config.schedule.plateau_patience
    )


def make_plateau_update(config: Any) -> Callable[[Any, Any], Any]:
    """Returns `(plateau state, validation loss) -> plateau state`, to be called per validation."""
    rule = plateau(config)
    # The rule also scales the updates it is given: here there are none.
    return lambda state, loss: rule.update({}, state, value=loss)[1]


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Returns optax.clip_by_global_norm, as one factor for all gradients.

    optax selects between a gradient and the scaled gradient, and divides: on CPUs that is another
    array of the parameters' size, written and read again (an update of 120 MB of parameters takes
    37.1 ms instead of 29.5, docs/benchmarks/log.md).
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = jnp.minimum(1, limit / optax.tree.norm(updates))
        return jax.tree.map(lambda x: x * factor.astype(x.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(config: Any, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns clipping by global norm, then AdamW or SGD, over the parameters that are not frozen.

    Args:
      config: the experiment; reads `optimizer` and `freeze`.
      schedule: step -> learning rate.
    """
    settings = config.optimizer
    if settings.name == "adamw":
        rule = optax.adamw(
            schedule,
            b1=settings.b1,
            b2=settings.b2,
            weight_decay=settings.weight_decay,
            mask=decay_mask,
        )
    else:
        rule = optax.chain(
            optax.add_decayed_weights(settings.weight_decay, mask=decay_mask),
            optax.sgd(schedule, momentum=settings.momentum or None),
        )
    if settings.clip_norm:
        rule = optax.chain(clip_by_global_norm(settings.clip_norm), rule)
    if not config.freeze:
        return rule

    def labels(params: Any) -> Any:
        mask = frozen_mask(params, tuple(config.freeze))
        return jax.tree.map(lambda frozen: "frozen" if frozen else "trained", mask)

    return optax.partition({"trained": rule, "frozen": optax.set_to_zero()}, labels)
