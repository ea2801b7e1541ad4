"""Data parallelism: one mesh axis, batches laid over it, a step mapped by shard_map or by pmap."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aver_jax.errors import UserError

AXIS = "data"
MAPPINGS = ("shard_map", "pmap")

Batch = dict[str, np.ndarray]


def join_processes() -> None:
    """Makes this process one of several that train together; before anything else uses jax.

    TPU pods and Slurm, Open MPI and Kubernetes jobs are recognised by jax; elsewhere the variables
    JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID say it.

    Raises:
      UserError: the processes did not find each other.
    """
    told = {name: os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")}
    try:
        jax.distributed.initialize(
            coordinator_address=os.environ.get("JAX_COORDINATOR_ADDRESS"),
            num_processes=told["JAX_NUM_PROCESSES"] and int(told["JAX_NUM_PROCESSES"]),
            process_id=told["JAX_PROCESS_ID"] and int(told["JAX_PROCESS_ID"]),
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"config.distributed is set, but the processes did not join ({reason}); set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or leave it unset"
        ) from error


def largest_of_processes(value: int) -> int:
    """Returns the largest of the processes' values to all of them; they must ask together."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.array(value)).max())


def make_mesh(devices: int | None = None) -> Mesh:
    """Returns a one-axis mesh over the first `devices` devices (default: all of them)."""
    return jax.make_mesh(
        (devices or jax.device_count(),),
        (AXIS,),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[: devices or None],
    )


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError unless every device gets equally many examples, in `accumulate` parts."""
    parts = mesh.size * accumulate
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        choice = f"{below} or {above}" if below else str(above)
        raise UserError(
            f"batch_size {batch_size} cannot be divided by {mesh.size} devices"
            + (f" x {accumulate} accumulation parts" if accumulate > 1 else "")
            + f"; take {choice}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, P())


def to_devices(batch: Batch, mesh: Mesh, axis: int = 0) -> dict[str, jax.Array]:
    """Lays a batch over the mesh along an axis, the first unless told.

    Args:
      batch: this process' part of the global batch, arrays [B / processes, ...].
      mesh: from `make_mesh`.
      axis: which axis holds the examples.

    Returns:
      Global arrays [B, ...], the transfer under way.
    """
    sharding = NamedSharding(mesh, P(*[None] * axis, AXIS))
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def map_forward(
    forward: Callable[..., Any], mesh: Mesh, options: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """Returns `forward(variables, batch)` jitted and mapped over the devices.

    Args:
      forward: takes replicated variables and one device's batch [B / n, ...], returns arrays
        [B / n, ...].
      mesh: from `make_mesh`.
      options: of the compiler.

    Returns:
      A function of variables and a batch laid out by `to_devices`, which gives arrays [B, ...].
    """
    mapped = jax.shard_map(
        forward, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False
    )
    return jax.jit(mapped, compiler_options=options)


def to_host(array: jax.Array) -> np.ndarray:
    """Returns an array [B, ...] laid over the devices as one numpy array on every process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def map_step(
    gradients: Callable[..., Any],
    update: Callable[..., Any],
    mesh: Mesh,
    mapping: str,
    *,
    layout: str | None = None,
    steps: int = 1,
    options: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """Returns the train step `(state, host batch, clips) -> (state, metrics)`, data-parallel.

    Args:
      gradients: `(state, one device's batch, clips) -> (gradients, metrics)`, already averaged
        over `AXIS`, so equal on all devices.
      update: `(state, gradients) -> state`.
      mesh: from `make_mesh`.
      mapping: "shard_map" maps `gradients` and leaves `update` an ordinary function under the same
        jit, whose shardings may later split parameters and optimizer state; "pmap" maps both.
      layout: how `clips`, clips in the devices' memory, lies on the devices: "replicated", or
        "sharded", one part of the first axis each, which `gradients` gets without that axis; None:
        there are none, and it may be left out.
      steps: K, train steps that one call does; above 1 the batch is one of K steps behind each
        other, arrays [K, B, ...], and the metrics are arrays [K].
      options: of the compiler; "pmap" knows none.

    Returns:
      The step; by "shard_map" its attribute `jitted` is the compiled function, which takes a batch
      that is laid over the devices; by "pmap" `pmapped`, which takes one [devices, B / devices,
      ...].
    """

    def repeated(step):
        # A loop of a known length: an accelerator need not ask the host whether it goes on.
        def all_steps(state, batches, clips):
            return jax.lax.scan(lambda state, batch: step(state, batch, clips), state, batches)

        return all_steps if steps > 1 else step

    sharded = layout == "sharded"
    # The default check_vma=True sums the gradient of replicated parameters by itself, and the
    # explicit mean would leave it n times too large.
    if mapping == "shard_map":

        def of_device(state, batch, clips):
            if sharded:
                clips = jax.tree.map(lambda x: x.reshape(x.shape[1:]), clips)
            return gradients(state, batch, clips)

        mapped = jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=(P(), P(AXIS), P(AXIS) if sharded else P()),
            out_specs=(P(), P()),
            check_vma=False,
        )

        def sharded_step(state, batch, clips):
            grads, metrics = mapped(state, batch, clips)
            return update(state, grads), metrics

        jitted = jax.jit(repeated(sharded_step), donate_argnums=0, compiler_options=options)
        axis = 1 if steps > 1 else 0

        def laid_out(state, batch, clips=None):
            return jitted(state, to_devices(batch, mesh, axis), clips)

        laid_out.jitted = jitted
        return laid_out

    def device_step(state, batch, clips):
        grads, metrics = gradients(state, batch, clips)
        return update(state, grads), metrics

    pmapped = jax.pmap(
        repeated(device_step),
        AXIS,
        in_axes=(None, 1 if steps > 1 else 0, 0 if sharded else None),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=0,
    )
    local = mesh.local_mesh.size

    def split(array: np.ndarray) -> np.ndarray:
        before = array.shape[:1] if steps > 1 else ()
        examples, *after = array.shape[len(before) :]
        return array.reshape(*before, local, examples // local, *after)

    def step(state, batch, clips=None):
        return pmapped(state, jax.tree.map(split, batch), clips)

    step.pmapped = pmapped
    return step
