"""One call of each task in aver_jax: what is timed, and what it answers first, for others to check.

Every call blocks until its result is there. What it covers: of models all from a host batch on;
of the front end the work on the device alone; of the input one batch on the host.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aver_jax import relevance
from aver_jax.bench.cases import Case
from aver_jax.bench.worker.inputs import experiment, made_up_batch, model_of_case, noisy_variables
from aver_jax.evaluation.forward import compiled_forward
from aver_jax.frontend import augment, evaluation_inputs
from aver_jax.frontend.keys import AUGMENTATION, example_keys, stream_keys
from aver_jax.input import ClipShape, Loader, open_dataset, training_batches
from aver_jax.runtime.mesh import make_mesh, replicated, to_devices, to_host
from aver_jax.training.settings import StepSettings
from aver_jax.training.step import train_step

#: Steps of a training whose losses are compared: the second checks gradients and the update.
CHECKED_STEPS = 3


@dataclasses.dataclass
class Work:
    """A case made ready.

    Attributes:
      call: does the work once and blocks.
      result: what the first calls gave, by name; other sides must agree with it.
      first_call_seconds: of the very first call, which compiles.
      batch: host arrays it works on; {} for the input.
      variables: float32 numpy arrays; {} without a model.
      factors: of the checked augmentation; {} elsewhere.
      close: ends what runs in the background.
    """

    call: Callable[[], Any]
    result: dict[str, np.ndarray]
    first_call_seconds: float
    batch: dict[str, np.ndarray]
    variables: dict[str, Any] = dataclasses.field(default_factory=dict)
    factors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    close: Callable[[], None] = lambda: None


def make_ready(case: Case, devices: int = 1, data: Path | None = None, threads: int = 2) -> Work:
    """Compiles a case and makes its first calls.

    Args:
      case: what to do.
      devices: of the mesh.
      data: prepared dataset, of an input case.
      threads: that make batches, of an input case.
    """
    if case.task == "input":
        return _input(case, data, threads)
    if case.task in ("spectrogram", "augmentation"):
        return {"spectrogram": _spectrogram, "augmentation": _augmentation}[case.task](case)
    ready = {"train": _train, "inference": _inference, "relevance": _relevance}[case.task]
    return ready(case, make_mesh(devices))


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    value = call()
    return value, time.perf_counter() - began


def _train(case: Case, mesh: jax.sharding.Mesh) -> Work:
    model, batch, variables = model_of_case(case), made_up_batch(case), noisy_variables(case)
    # A constant rate has no epochs, but the schedule asks for them.
    program = train_step(model, StepSettings.from_config(experiment(case)), 1, mesh)
    held = [jax.device_put(program.init(variables, 0), replicated(mesh))]

    def call() -> float:
        held[0], metrics = program.step(held[0], batch)
        return float(metrics["loss"])

    first, seconds = _timed(call)
    losses = [first, *(call() for _ in range(CHECKED_STEPS - 1))]
    return Work(call, {"losses": np.float32(losses)}, seconds, batch, variables)


def _inference(case: Case, mesh: jax.sharding.Mesh) -> Work:
    model, batch, variables = model_of_case(case), made_up_batch(case), noisy_variables(case)
    forward = compiled_forward(model, experiment(case), mesh)
    placed = jax.device_put(variables, replicated(mesh))

    def call() -> np.ndarray:
        return to_host(forward(placed, batch)["logits"])

    logits, seconds = _timed(call)
    return Work(call, {"logits": np.float32(logits)}, seconds, batch, variables)


def _relevance(case: Case, mesh: jax.sharding.Mesh) -> Work:
    model, batch, variables = model_of_case(case), made_up_batch(case), noisy_variables(case)
    config = experiment(case)
    placed = jax.device_put(variables, replicated(mesh))
    inputs_of = jax.jit(lambda batch: evaluation_inputs(config, batch))

    def call() -> relevance.Relevance:
        inputs = inputs_of(to_devices(batch, mesh))
        return jax.block_until_ready(relevance.explain(model, placed, inputs))

    found, seconds = _timed(call)
    result = {name: np.asarray(getattr(found, name)) for name in ("maps", "logits", "target")}
    return Work(call, result, seconds, batch, variables)


def _spectrogram(case: Case) -> Work:
    batch, config = made_up_batch(case), experiment(case)
    placed = jax.device_put({name: batch[name] for name in ("audio", "audio_length")})
    segments_of = jax.jit(lambda batch: evaluation_inputs(config, batch)["audio"])

    def call() -> jax.Array:
        return jax.block_until_ready(segments_of(placed))

    audio, seconds = _timed(call)
    return Work(call, {"audio": np.asarray(audio)}, seconds, batch)


def _augmentation(case: Case) -> Work:
    batch = made_up_batch(case)
    amounts = augment.checked_amounts(experiment(case).frontend.augment)
    # Another's random numbers cannot be drawn again: noise is timed, and left out of the check.
    noiseless = amounts | {"noise": augment.OFF["noise"]}
    frames = jax.device_put(batch["frames"])
    side = case.image_size

    @jax.jit
    def factors_of(seeds: jax.Array) -> augment.Factors:
        keys = stream_keys(example_keys(jnp.uint32(0), seeds), AUGMENTATION)
        return jax.vmap(lambda key: augment.random_factors(key, amounts, side, side))(keys)

    def applied(frames: jax.Array, factors: augment.Factors, amounts: Mapping) -> jax.Array:
        return jax.vmap(lambda *x: augment.augmented(*x, amounts))(frames, factors)

    drawn = jax.jit(lambda frames, seeds: applied(frames, factors_of(seeds), amounts))
    factors = factors_of(batch["seed"])
    checked = jax.jit(lambda *x: applied(*x, noiseless))(frames, factors)
    calls = iter(range(1, 2**31))

    def call() -> jax.Array:
        return jax.block_until_ready(drawn(frames, batch["seed"] + np.uint32(next(calls))))

    _, seconds = _timed(call)
    given = {name: np.asarray(getattr(factors, name)) for name in ("matrix", "sigma", "contrast")}
    return Work(call, {"frames": np.asarray(checked)}, seconds, batch, factors=given)


def _input(case: Case, data: Path | None, threads: int) -> Work:
    if data is None:
        raise ValueError("an input case needs a dataset")
    dataset = open_dataset(data)
    # grain shuffles few rows slowly: 4 ms an index for 4 rows, 20 us for 1000.
    rows = np.resize(np.arange(len(dataset)), max(len(dataset), 1024))
    batches = training_batches(
        dataset,
        rows,
        np.zeros(len(dataset), np.int32),
        Loader(
            ClipShape(
                case.num_frames, case.image_size, case.seconds or 6.0, tuple(case.modalities)
            ),
            case.batch_size,
            threads,
        ),
        seed=0,
    )
    _, seconds = _timed(lambda: next(batches))
    # As many as may be ready before the clock starts.
    for _ in range(threads + 1):
        next(batches)
    return Work(lambda: next(batches), {}, seconds, {}, close=batches.close)
