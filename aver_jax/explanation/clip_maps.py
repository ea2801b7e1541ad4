"""Relevance maps of many clips of a dataset, and the control maps that know nothing of the model.

Controls: `random` draws every tubelet's relevance, `centre` falls with the distance from the middle
of the frame. A method that does no better than these has found nothing that is the model's own.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from aver_jax.errors import UserError
from aver_jax.evaluation.clip_batches import ClipBatches
from aver_jax.evaluation.evaluator import collect_logits, evaluation_loader
from aver_jax.evaluation.forward import compiled_forward, compiled_inputs
from aver_jax.input import Dataset, split
from aver_jax.modality import Modality
from aver_jax.relevance import explain, methods_of, paths_of
from aver_jax.runs.run_folder import LoadedRun
from aver_jax.runtime.data_parallel import make_mesh, replicated, to_devices, to_host

CONTROLS = ("random", "centre")
SEED = 0
# Pixels of a tubelet's side where the network has no patches of its own (TimeSformer-B's).
_PATCH = 16


class ClipMaps(NamedTuple):
    """Maps of n clips, row i of clip i.

    Attributes:
      maps: float32 [n,T,h,w], as the method gives them (not scaled); places, patches or pixels.
      logits: float32 [n,C].
      target: int32 [n], the class that was explained.
      ms_per_clip: steady time of a call divided by its clips, the first (compiling) call left out;
        NaN if there was only one call, and for controls.
    """

    maps: np.ndarray
    logits: np.ndarray
    target: np.ndarray
    ms_per_clip: float


def maps_of(
    run: LoadedRun,
    dataset: Dataset,
    rows: Sequence[int] | np.ndarray,
    method: str,
    *,
    path: str = "space_time",
    target: str | int | np.ndarray = "predicted",
    modality: str = "video",
    batch_size: int = 16,
) -> ClipMaps:
    """Explains clips of a dataset as evaluation reads them, batch by batch over the devices.

    Args:
      run: a trained model.
      dataset: an open dataset.
      rows: int [n] of it.
      method: one of `relevance.methods_of(run.model)`, or of `CONTROLS` (of video).
      path: as in `relevance.explain`; a model that lacks it is explained through its first path.
      target: "predicted", "label" (the run's own kind of label), one class index for all, or int
        [n].
      modality: whose relevance.
      batch_size: clips at a time, rounded up to a multiple of the devices.

    Raises:
      UserError: no rows; an unknown method or target; rows without a label, if it is explained.
    """
    methods = (*methods_of(run.model), *CONTROLS)
    if method not in methods:
        raise UserError(
            f"method {method!r} does not explain this {run.config.model.name}; "
            f"choose from {', '.join(methods)}"
        )
    if method in CONTROLS and Modality(modality) is not Modality.VIDEO:
        raise UserError(f"the control {method!r} is one of video; leave it out for {modality}")
    rows = np.asarray(rows)
    classes = _classes(run, dataset, rows, target)
    mesh = make_mesh()
    batches = clip_batches(run, dataset, rows, batch_size)
    variables = jax.device_put(run.variables, replicated(mesh))
    if method in CONTROLS:
        forward = compiled_forward(run.model, run.config, mesh)
        logits = np.float32(collect_logits(lambda b: forward(variables, b), batches).logits)
        chosen = np.int32(logits.argmax(-1)) if classes is None else classes
        return ClipMaps(control_maps(method, rows, tubelet_grid(run)), logits, chosen, float("nan"))

    paths, inputs_of = paths_of(run.model), compiled_inputs(run.config, mesh)
    path = path if path in paths else paths[0]
    found, seconds = [], []
    for number, batch in enumerate(batches):
        inputs = inputs_of(variables, to_devices(batch, mesh))
        size = len(batch["row"])
        own = None
        if classes is not None:
            # The last batch is filled up with its last clip.
            places = np.minimum(number * size + np.arange(size), len(rows) - 1)
            own = classes[places]
        jax.block_until_ready(inputs)
        began = time.perf_counter()
        given = explain(run.model, variables, inputs, method, path, modality, own, normalize=False)
        jax.block_until_ready(given)
        seconds.append((time.perf_counter() - began) / size)
        mask = batch["mask"]
        found.append([to_host(x)[mask] for x in (given.maps, given.logits, given.target)])
    maps, logits, chosen = (np.concatenate(parts) for parts in zip(*found, strict=True))
    steady = 1000 * float(np.mean(seconds[1:])) if len(seconds) > 1 else float("nan")
    return ClipMaps(np.float32(maps), np.float32(logits), np.int32(chosen), steady)


def clip_batches(
    run: LoadedRun, dataset: Dataset, rows: np.ndarray, batch_size: int, keep: bool = False
) -> ClipBatches:
    """Returns the batches of these rows, one view per clip, labels -1 where there is none.

    Args:
      run: whose clips' shape and kind of label are used.
      dataset, rows: as in `maps_of`.
      batch_size: rounded up to a multiple of the devices.
      keep: whether decoded batches stay in memory.
    """
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.evaluation.batch_size = batch_size
    loader = evaluation_loader(config, make_mesh())
    return ClipBatches(dataset, np.asarray(rows), _labels(run, dataset), loader, 1, keep)


def tubelet_grid(run: LoadedRun) -> tuple[int, int, int]:
    """Returns T, h, w of the run's clips cut into tubelets: one patch of one frame each."""
    data = run.config.data
    patch = getattr(run.model, "patch_size", _PATCH)
    side = max(1, data.image_size // patch)
    return data.num_frames, side, side


def control_maps(control: str, rows: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """Returns the maps of a control, float32 [n,T,h,w]; those of a row are the same in any batch.

    Args:
      control: one of `CONTROLS`.
      rows: int [n], whose numbers seed what is random.
      grid: T, h, w.
    """
    if control == "random":
        return np.stack([_random_of(int(row)).random(grid, np.float32) for row in rows])
    _, height, width = grid
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    # Non-negative, as the maps of every method are.
    one = np.float32(distance.max() - distance)
    return np.broadcast_to(one, (len(rows), *grid)).copy()


def time_shuffled(maps: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns maps [n,T,h,w] with each clip's frames in a random order, never the given one.

    What of a method's score is left then is owed to the places it marks, not to the moments.
    """
    shuffled = np.empty_like(maps)
    for clip, row in enumerate(rows):
        rng = _random_of(int(row))
        order = rng.permutation(maps.shape[1])
        while maps.shape[1] > 1 and np.array_equal(order, np.arange(maps.shape[1])):
            order = rng.permutation(maps.shape[1])
        shuffled[clip] = maps[clip, order]
    return shuffled


def on_grid(maps: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """Returns maps [n,T',h',w'] as means over the tubelets of a grid, float32 [n,T,h,w].

    Every place of the map is spread evenly over its part of the clip: pixels are averaged over a
    patch, and a coarse map gives all patches of one of its places the same value.
    """
    for axis, size in enumerate(grid, 1):
        if maps.shape[axis] != size:
            weights = _overlaps(maps.shape[axis], size)
            maps = np.moveaxis(np.tensordot(maps, weights, (axis, 1)), -1, axis)
    return np.float32(maps)


def _overlaps(given: int, wanted: int) -> np.ndarray:
    """Returns float64 [wanted, given]: the share of each wanted part that each given part covers.

    Both cut the same length into equal parts.
    """
    edges, ends = np.arange(given + 1) / given, np.arange(wanted + 1) / wanted
    low = np.maximum(ends[:-1, None], edges[None, :-1])
    high = np.minimum(ends[1:, None], edges[None, 1:])
    return np.maximum(high - low, 0) * wanted


def _random_of(row: int) -> np.random.Generator:
    return np.random.default_rng([SEED, row])


def _labels(run: LoadedRun, dataset: Dataset) -> np.ndarray:
    data: Mapping[str, Any] = run.config.data
    return split(dataset, data.protocol, data.fold, data.target).labels


def _classes(run, dataset, rows, target) -> np.ndarray | None:
    """Returns the classes to explain, int32 [n]; None for the predicted ones."""
    if isinstance(target, str):
        if target == "predicted":
            return None
        if target != "label":
            raise UserError(f"target is {target!r}; expected 'predicted', 'label' or classes")
        classes = _labels(run, dataset)[rows]
        if (classes < 0).any():
            raise UserError(f"{(classes < 0).sum()} of {len(rows)} clips have no label to explain")
        return np.int32(classes)
    classes = np.broadcast_to(np.int32(target), (len(rows),))
    if len(rows) and not (classes.min() >= 0 and classes.max() < len(run.classes)):
        raise UserError(
            f"target holds classes from {classes.min()} to {classes.max()}; expected 0 to "
            f"{len(run.classes) - 1}, of {', '.join(run.classes)}"
        )
    return classes
