"""The train step: loss and gradients of one device's examples, the update, and both compiled."""

import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aver_jax.frontend import example_keys, stream_keys, training_inputs
from aver_jax.frontend.keys import MODEL
from aver_jax.models import init_variables, unstacked_layers
from aver_jax.models.param_paths import frozen_mask
from aver_jax.models.timesformer.unstacked import stacked
from aver_jax.runtime.data_parallel import AXIS, map_step
from aver_jax.training.device_cache import DeviceClips, gathered
from aver_jax.training.optimizer import (
    check_freeze,
    learning_rate,
    make_optimizer,
    make_plateau_update,
    plateau,
)
from aver_jax.training.settings import StepSettings
from aver_jax.training.state import TrainState, create_state

Batch = dict[str, jax.Array]


def make_loss(model: Any, config: Any) -> Callable[..., Any]:
    """Returns `loss(params, collections, batch, seed, clips=None)`.

    It gives (loss, (collections, metrics)).

    The loss is softmax cross-entropy with label smoothing, averaged over the examples, of the
    model's logits and of every tap in its `auxiliary_logits`, added up (thesis, eq. 28:
    L_v + L_a + L_va). Training batches are whole: their `mask` is True throughout and not read.

    metrics are scalars float32: "loss"; "war", the share of examples that the model's logits get
    right; and, with auxiliary losses, the terms of the sum: "loss_fused" and one "loss_BRANCH" for
    every tap "logits_BRANCH".

    Args of `loss`:
      params, collections: the model's variables.
      batch: of `aver_jax.input`; with `clips`, the plan of one.
      seed: uint32 [], the experiment's seed.
      clips: the clips that a plan takes its batch from, in this device's memory.
    """
    auxiliary = model.auxiliary_logits

    def loss(params, collections, batch: Batch, seed: jax.Array, clips: DeviceClips | None = None):
        if clips is not None:
            batch = gathered(clips, batch)
        inputs = training_inputs(SimpleNamespace(seed=seed, frontend=config.frontend), batch)
        keys = stream_keys(example_keys(seed, batch["seed"]), MODEL)
        (logits, taps), updated = model.apply(
            # XLA undoes a slice of a concatenation: neither is in the compiled step.
            {"params": stacked(params), **collections},
            inputs,
            train=True,
            keys=keys,
            mutable=list(collections),
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], logits.shape[-1]), config.label_smoothing
        )

        def cross_entropy(logits):
            return optax.softmax_cross_entropy(logits, targets).mean()

        fused = cross_entropy(logits)
        branches = {tap.replace("logits_", "loss_"): cross_entropy(taps[tap]) for tap in auxiliary}
        total = sum(branches.values(), start=fused)
        metrics = {"loss": total, "war": (jnp.argmax(logits, -1) == batch["label"]).mean()}
        if branches:
            metrics |= {"loss_fused": fused, **branches}
        return total, (updated, metrics)

    return loss


def make_gradients(model: Any, config: Any) -> Callable[..., Any]:
    """Returns `gradients(state, batch, clips=None)` for one device.

    It gives ((grads, collections), metrics).

    Runs inside a map over `AXIS`; what it returns is averaged over the devices, and the statistics
    of batch normalisation are those of all devices' examples. With `config.optimizer.accumulate`
    = k the device works through its examples in k microbatches, so that the step, the schedule
    and the position in the data mean the same for every k. Batch statistics are then those of each
    microbatch, and the running ones move k times a step.
    """
    loss = make_loss(model.with_axis(AXIS), config)
    microbatches = config.optimizer.accumulate
    frozen = tuple(config.freeze)

    def trained(params):
        # Cuts the backward pass of frozen parameters away, not only their update.
        return jax.tree.map(
            lambda fixed, p: jax.lax.stop_gradient(p) if fixed else p,
            frozen_mask(params, frozen),
            params,
        )

    def of_microbatch(params, collections, batch, seed, clips):
        return jax.value_and_grad(
            lambda p: loss(trained(p), collections, batch, seed, clips), has_aux=True
        )(params)

    def gradients(state: TrainState, batch: Batch, clips: DeviceClips | None = None):
        params = state.variables["params"]
        collections = {k: v for k, v in state.variables.items() if k != "params"}
        if microbatches == 1:
            (_, (collections, metrics)), grads = of_microbatch(
                params, collections, batch, state.seed, clips
            )
        else:
            # Every k-th example: microbatches hold the same examples on any number of devices.
            split = jax.tree.map(
                lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch
            )

            def one(carry, microbatch):
                collections, total = carry
                (_, (collections, metrics)), grads = of_microbatch(
                    params, collections, microbatch, state.seed, clips
                )
                return (collections, jax.tree.map(jnp.add, total, grads)), metrics

            zeros = jax.tree.map(jnp.zeros_like, params)
            (collections, total), metrics = jax.lax.scan(one, (collections, zeros), split)
            grads = jax.tree.map(lambda g: g / microbatches, total)
            metrics = jax.tree.map(jnp.mean, metrics)
        if jax.lax.axis_size(AXIS) > 1:  # of one device's, the mean would be a copy
            (grads, collections), metrics = jax.lax.pmean(((grads, collections), metrics), AXIS)
        return (grads, collections), {**metrics, "grad_norm": optax.tree.norm(grads)}

    return gradients


def make_update(optimizer: optax.GradientTransformation, config: Any) -> Callable[..., Any]:
    """Returns `update(state, (grads, collections)) -> state`."""
    decay = config.ema_decay

    def update(state: TrainState, gradients) -> TrainState:
        grads, collections = gradients
        params = state.variables["params"]
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        updates = optax.tree.scale(state.plateau.scale, updates)
        variables = {"params": optax.apply_updates(params, updates), **collections}
        ema = state.ema
        if ema:
            # A young average follows quickly, or it would stay near the initial weights.
            rate = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
            # Not optax.incremental_update: as a difference, the mean of equal values is exact.
            ema = jax.tree.map(lambda mean, x: mean + (1.0 - rate) * (x - mean), ema, variables)
        return TrainState(
            step=state.step + 1,
            variables=variables,
            ema=ema,
            opt_state=opt_state,
            plateau=state.plateau,
            seed=state.seed,
        )

    return update


# Compiled steps stay in memory: enough for the networks of a study, one after the other.
_KEPT = 16


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The compiled train step of a model, built once in a process for equal settings.

    A training of another fold or seed, or on another dataset of equal size, runs the step of the
    first: nothing is traced or compiled again.

    Attributes:
      shapes: the model's variables as shapes.
      schedule: step -> learning rate.
      init: `(variables, seed) -> TrainState` before the first step.
      compiled: `(layout, K) -> step`, where `step(state, host batch, clips) -> (state, metrics)` is
        that of `data_parallel.map_step`; it donates the old state. Equal arguments give the same
        function.
      reduce_lr_on_plateau: `(plateau state, validation loss) -> plateau state`.
    """

    shapes: dict[str, Any]
    schedule: optax.Schedule
    init: Callable[[dict[str, Any], Any], TrainState]
    compiled: Callable[[str | None, int], Callable[..., tuple[TrainState, dict[str, jax.Array]]]]
    reduce_lr_on_plateau: Callable[[Any, Any], Any]

    @property
    def step(self) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
        """One step of a whole batch from the host: `(state, batch) -> (state, metrics)`."""
        return self.compiled(None, 1)


@functools.lru_cache(_KEPT)
def train_step(
    model: Any, settings: StepSettings, steps_per_epoch: int, mesh: jax.sharding.Mesh
) -> TrainStep:
    """Returns the compiled step that trains a model.

    Args:
      model: a flax module, compared by its fields.
      settings: of the experiment.
      steps_per_epoch: what the schedule's epochs are in steps.
      mesh: from `data_parallel.make_mesh`.

    Raises:
      UserError: `config.freeze` names nothing of the model.
    """
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    check_freeze({"params": shapes["params"]}, settings.freeze)
    schedule = learning_rate(settings, steps_per_epoch)
    optimizer = make_optimizer(settings, schedule)
    gradients, update = make_gradients(model, settings), make_update(optimizer, settings)

    @jax.jit  # compiled whole: one by one, the zeros of every shape would be a function each
    def init(variables: dict[str, Any], seed: Any) -> TrainState:
        return create_state(
            unstacked_layers(model, variables),
            optimizer,
            plateau(settings),
            settings.ema_decay,
            seed,
        )

    @functools.cache
    def compiled(layout: str | None, count: int):
        return map_step(
            gradients,
            update,
            mesh,
            settings.parallel,
            layout=layout,
            steps=count,
            options=model.compiler_options,
        )

    return TrainStep(shapes, schedule, init, compiled, jax.jit(make_plateau_update(settings)))
