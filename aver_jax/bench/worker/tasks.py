"""Each task in aver_jax: the call that is timed, and the outputs that others must agree with.

Every call blocks until its result is there. A model's call starts from a host batch; a front end's
call is the work on the device only; an input call returns one batch on the host.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aver_jax import relevance
from aver_jax.bench.cases import Case
from aver_jax.bench.worker.case_files import CaseFiles
from aver_jax.bench.worker.inputs import (
    NUM_CLASSES,
    case_config,
    case_model,
    named_leaves,
    noisy_variables,
    synthetic_batch,
)
from aver_jax.config import to_json
from aver_jax.evaluation.forward import compiled_forward
from aver_jax.frontend import augment, evaluation_inputs, spectrogram
from aver_jax.frontend.keys import AUGMENTATION, example_keys, stream_keys
from aver_jax.input import ClipShape, Dataset, Loader, open_dataset, training_batches
from aver_jax.relevance.explain import methods_of
from aver_jax.relevance.explain import traced as traced_relevance
from aver_jax.runtime.data_parallel import make_mesh, replicated, to_devices, to_host
from aver_jax.training.optimizer import decay_mask
from aver_jax.training.settings import StepSettings
from aver_jax.training.step import train_step

# Train steps whose losses are compared: the second loss depends on the first update.
_COMPARED_STEPS = 3
# The default of optax, which `config.optimizer` does not set.
_EPSILON = 1e-8


@dataclasses.dataclass
class PreparedCase:
    """A case that is compiled and ready to be timed.

    Attributes:
      call: does the work once and blocks.
      outputs: arrays of the first calls, by name; other implementations must agree with them.
      first_call_seconds: of the very first call, which compiles.
      batch: host arrays it works on; {} for the input task.
      variables: float32 numpy arrays; {} without a model.
      factors: of the compared augmentation; {} for other tasks.
      on_device: a model's call without the batch's way from the host and the results' way back.
      lowered: returns the program that `call` and `on_device` run, as jax lowered it; compiling
        it gives the executable that is there already. None without a model.
      close: ends background threads.
    """

    call: Callable[[], Any]
    outputs: dict[str, np.ndarray]
    first_call_seconds: float
    batch: dict[str, np.ndarray]
    variables: dict[str, Any] = dataclasses.field(default_factory=dict)
    factors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    on_device: Callable[[], Any] | None = None
    lowered: Callable[[], jax.stages.Lowered] | None = None
    close: Callable[[], None] = lambda: None


def prepare_case(
    case: Case, devices: int = 1, data: Path | None = None, threads: int = 2
) -> PreparedCase:
    """Returns a case whose first calls are made, so that everything is compiled.

    Args:
      case: the case.
      devices: number of devices in the mesh.
      data: prepared dataset of an input case.
      threads: data-loading threads of an input case.
    """
    if case.task == "input":
        return _input(case, data, threads)
    if case.task in ("spectrogram", "augmentation"):
        return {"spectrogram": _spectrogram, "augmentation": _augmentation}[case.task](case)
    prepare = {"train": _train, "inference": _inference, "relevance": _relevance}[case.task]
    return prepare(case, make_mesh(devices))


def case_files(
    folder: Path, case: Case, prepared: PreparedCase, data: Path | None = None, threads: int = 2
) -> CaseFiles:
    """Returns the files that other implementations need to do the case; `write` is the caller's."""
    config, decayed, auxiliary = case_config(case), [], []
    if case.has_model:
        mask = jax.tree.map(bool, decay_mask(prepared.variables["params"]))
        decayed = [name for name, on in named_leaves({"params": mask}).items() if on]
        auxiliary = list(case_model(case).auxiliary_logits)
    optimizer = to_json(config.optimizer)
    rule = {n: optimizer[n] for n in ("name", "lr", "b1", "b2", "weight_decay", "clip_norm")}
    settings = {
        "num_classes": NUM_CLASSES,
        "frontend": {
            "normalization": config.frontend.normalization,
            "spectrogram": dataclasses.asdict(
                spectrogram.checked_settings(config.frontend.spectrogram)
            ),
            "augment": augment.checked_amounts(config.frontend.augment),
        },
        "optimizer": {**rule, "eps": _EPSILON, "decayed": decayed},
        "label_smoothing": config.label_smoothing,
        "auxiliary_logits": auxiliary,
        "steps": _COMPARED_STEPS,
        "relevance": {"method": "tibav", "path": "space_time"},
        "target": prepared.outputs["target"].tolist() if case.task == "relevance" else None,
        "dataset": str(data) if data else None,
        "threads": threads,
    }
    variables = named_leaves(prepared.variables)
    fields = dataclasses.asdict(case)
    return CaseFiles(folder, fields, settings, variables, prepared.batch, prepared.factors)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    value = call()
    return value, time.perf_counter() - began


def _train(case: Case, mesh: jax.sharding.Mesh) -> PreparedCase:
    model, batch, variables = case_model(case), synthetic_batch(case), noisy_variables(case)
    # The schedule needs the steps of an epoch, though a constant rate does not depend on them.
    training = train_step(model, StepSettings.from_config(case_config(case)), 1, mesh)
    state = jax.device_put(training.init(variables, 0), replicated(mesh))

    def call() -> float:
        nonlocal state
        state, metrics = training.step(state, batch)
        return float(metrics["loss"])

    first, seconds = _timed(call)
    losses = [first, *(call() for _ in range(_COMPARED_STEPS - 1))]
    placed = to_devices(batch, mesh)

    def on_device() -> None:
        nonlocal state
        state, metrics = training.step.jitted(state, placed, None)
        jax.block_until_ready(metrics)

    def lowered() -> jax.stages.Lowered:
        return training.step.jitted.lower(state, placed, None)

    outputs = {"losses": np.float32(losses)}
    return PreparedCase(
        call, outputs, seconds, batch, variables, on_device=on_device, lowered=lowered
    )


def _inference(case: Case, mesh: jax.sharding.Mesh) -> PreparedCase:
    model, batch, variables = case_model(case), synthetic_batch(case), noisy_variables(case)
    forward = compiled_forward(model, case_config(case), mesh)
    placed = jax.device_put(variables, replicated(mesh))

    def call() -> np.ndarray:
        return to_host(forward(placed, batch)["logits"])

    logits, seconds = _timed(call)
    laid = to_devices(batch, mesh)
    return PreparedCase(
        call,
        {"logits": np.float32(logits)},
        seconds,
        batch,
        variables,
        on_device=lambda: jax.block_until_ready(forward.jitted(placed, laid)),
        lowered=lambda: forward.jitted.lower(placed, laid),
    )


def _relevance(case: Case, mesh: jax.sharding.Mesh) -> PreparedCase:
    model, batch, variables = case_model(case), synthetic_batch(case), noisy_variables(case)
    config = case_config(case)
    placed = jax.device_put(variables, replicated(mesh))
    inputs_of = jax.jit(lambda batch: evaluation_inputs(config, batch))

    def call() -> relevance.Relevance:
        inputs = inputs_of(to_devices(batch, mesh))
        return jax.block_until_ready(relevance.explain(model, placed, inputs))

    found, seconds = _timed(call)
    outputs = {name: np.asarray(getattr(found, name)) for name in ("maps", "logits", "target")}
    inputs = inputs_of(to_devices(batch, mesh))
    return PreparedCase(
        call,
        outputs,
        seconds,
        batch,
        variables,
        on_device=lambda: jax.block_until_ready(relevance.explain(model, placed, inputs)),
        lowered=lambda: traced_relevance(model, placed, inputs, methods_of(model)[0]).lower(),
    )


def _spectrogram(case: Case) -> PreparedCase:
    batch, config = synthetic_batch(case), case_config(case)
    placed = jax.device_put({name: batch[name] for name in ("audio", "audio_length")})
    segments_of = jax.jit(lambda batch: evaluation_inputs(config, batch)["audio"])

    def call() -> jax.Array:
        return jax.block_until_ready(segments_of(placed))

    audio, seconds = _timed(call)
    return PreparedCase(call, {"audio": np.asarray(audio)}, seconds, batch)


def _augmentation(case: Case) -> PreparedCase:
    batch = synthetic_batch(case)
    amounts = augment.checked_amounts(case_config(case).frontend.augment)
    # Others cannot draw the same noise: it is timed, and left out of the compared output.
    noiseless = amounts | {"noise": augment.OFF["noise"]}
    frames = jax.device_put(batch["frames"])
    size = case.image_size

    @jax.jit
    def factors_of(seeds: jax.Array) -> augment.Factors:
        keys = stream_keys(example_keys(jnp.uint32(0), seeds), AUGMENTATION)
        return jax.vmap(lambda key: augment.random_factors(key, amounts, size, size))(keys)

    def applied(frames: jax.Array, factors: augment.Factors, amounts: Mapping) -> jax.Array:
        return jax.vmap(lambda *x: augment.augmented(*x, amounts))(frames, factors)

    drawn = jax.jit(lambda frames, seeds: applied(frames, factors_of(seeds), amounts))
    factors = factors_of(batch["seed"])
    compared = jax.jit(lambda *x: applied(*x, noiseless))(frames, factors)
    calls = iter(range(1, 2**31))

    def call() -> jax.Array:
        return jax.block_until_ready(drawn(frames, batch["seed"] + np.uint32(next(calls))))

    _, seconds = _timed(call)
    given = {name: np.asarray(getattr(factors, name)) for name in ("matrix", "sigma", "contrast")}
    return PreparedCase(call, {"frames": np.asarray(compared)}, seconds, batch, factors=given)


def _input(case: Case, data: Path | None, threads: int) -> PreparedCase:
    if data is None:
        raise ValueError("an input case needs a dataset")
    shape = ClipShape(case.num_frames, case.image_size, case.seconds or 6.0, case.modalities)
    batches = endless_batches(open_dataset(data), Loader(shape, case.batch_size, threads))
    _, seconds = _timed(lambda: next(batches))
    # Prefetched batches must not be timed.
    for _ in range(threads + 1):
        next(batches)
    return PreparedCase(lambda: next(batches), {}, seconds, {}, close=batches.close)


def endless_batches(dataset: Dataset, loader: Loader) -> Iterator[Mapping]:
    """Returns training batches of every clip."""
    # grain shuffles few rows slowly: 4 ms an index for 4 rows, 20 us for 1000.
    rows = np.resize(np.arange(len(dataset)), max(len(dataset), 1024))
    labels = np.zeros(len(dataset), np.int32)
    return training_batches(dataset, rows, labels, loader, seed=0)
