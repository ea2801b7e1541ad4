"""The train step: loss and gradient of one device's examples, and the update."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aver_jax.frontend import example_keys, stream_keys, training_inputs
from aver_jax.frontend.keys import MODEL
from aver_jax.models import auxiliary_logits, with_axis
from aver_jax.models.param_paths import frozen_mask
from aver_jax.models.timesformer.unstacked import stacked
from aver_jax.runtime.mesh import AXIS
from aver_jax.training.device_cache import Resident, gathered
from aver_jax.training.state import TrainState

Batch = dict[str, jax.Array]


def make_loss(model: Any, config: Any) -> Callable[..., Any]:
    """Returns `loss(params, collections, batch, seed, resident=None)`.

    It gives (loss, (collections, metrics)).

    The loss is softmax cross-entropy with label smoothing, averaged over the examples, of the
    model's logits and of every tap in its `auxiliary_logits`, added up (thesis, eq. 28:
    L_v + L_a + L_va). Training batches are whole: their `mask` is True throughout and not read.

    metrics are scalars float32: "loss"; "war", the share of examples that the model's logits get
    right; and, with auxiliary losses, the terms of the sum: "loss_fused" and one "loss_BRANCH" for
    every tap "logits_BRANCH".

    Args of `loss`:
      params, collections: the model's variables.
      batch: of `aver_jax.input`; with `resident`, the plan of one.
      seed: uint32 [], the experiment's seed.
      resident: the clips that a plan takes its batch from, in this device's memory.
    """
    auxiliary = auxiliary_logits(model)

    def loss(params, collections, batch: Batch, seed: jax.Array, resident: Resident | None = None):
        if resident is not None:
            batch = gathered(resident, batch)
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
    """Returns `gradients(state, batch, resident=None)` for one device.

    It gives ((grads, collections), metrics).

    Runs inside a map over `AXIS`; what it returns is averaged over the devices, and the statistics
    of batch normalisation are those of all devices' examples. With `config.optimizer.accumulate`
    = k the device works through its examples in k parts, so that the step, the schedule and the
    position in the data mean the same for every k. Batch statistics are then those of each part,
    and the running ones move k times a step.
    """
    loss = make_loss(with_axis(model, AXIS), config)
    parts = config.optimizer.accumulate
    frozen = tuple(config.freeze)

    def trained(params):
        # Cuts the backward pass of frozen parameters away, not only their update.
        return jax.tree.map(
            lambda fixed, p: jax.lax.stop_gradient(p) if fixed else p,
            frozen_mask(params, frozen),
            params,
        )

    def of_part(params, collections, batch, seed, resident):
        return jax.value_and_grad(
            lambda p: loss(trained(p), collections, batch, seed, resident), has_aux=True
        )(params)

    def gradients(state: TrainState, batch: Batch, resident: Resident | None = None):
        params = state.variables["params"]
        collections = {k: v for k, v in state.variables.items() if k != "params"}
        if parts == 1:
            (_, (collections, metrics)), grads = of_part(
                params, collections, batch, state.seed, resident
            )
        else:
            # Every k-th example: the parts hold the same examples on any number of devices.
            split = jax.tree.map(
                lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
            )

            def one(carry, part):
                collections, total = carry
                (_, (collections, metrics)), grads = of_part(
                    params, collections, part, state.seed, resident
                )
                return (collections, jax.tree.map(jnp.add, total, grads)), metrics

            zeros = jax.tree.map(jnp.zeros_like, params)
            (collections, total), metrics = jax.lax.scan(one, (collections, zeros), split)
            grads = jax.tree.map(lambda g: g / parts, total)
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
