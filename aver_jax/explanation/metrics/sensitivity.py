"""Max-sensitivity (Yeh et al., NeurIPS 2019): how much a map moves when its clip hardly does."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax import Array

from aver_jax.evaluation.clip_batches import ClipBatches
from aver_jax.evaluation.forward import compiled_inputs
from aver_jax.relevance import explain, paths_of
from aver_jax.runs.run_folder import LoadedRun
from aver_jax.runtime.data_parallel import make_mesh, replicated, to_devices, to_host

#: Draws of noise whose largest effect counts, and its half width as a share of the inputs' range.
DRAWS = 5
RADIUS = 0.02


def max_sensitivity(
    run: LoadedRun, batches: ClipBatches, method: str, target: np.ndarray
) -> np.ndarray:
    """Returns max over draws of |map(x + e) - map(x)| / |map(x)|, Euclidean norms, float64 [n].

    e is uniform noise within `RADIUS` of the range of the clip's model inputs. The class stays the
    one explained, so that a map does not move because the prediction does.

    Args:
      run: a trained model.
      batches: n clips in all.
      method: one of `relevance.methods_of(run.model)`.
      target: int32 [n].
    """
    mesh = make_mesh()
    path, inputs_of = paths_of(run.model)[0], compiled_inputs(run.config, mesh)
    variables = jax.device_put(run.variables, replicated(mesh))
    found, first = [], 0
    for batch in batches:
        valid = batch["mask"]
        classes = target[np.minimum(first + np.arange(len(valid)), len(target) - 1)]
        first += int(valid.sum())
        inputs = inputs_of(variables, to_devices(batch, mesh))

        def maps_at(frames: Array, inputs=inputs, classes=classes) -> np.ndarray:
            changed = {**inputs, "frames": frames}
            given = explain(
                run.model, variables, changed, method, path, target=classes, normalize=False
            )
            return to_host(given.maps)

        found.append(largest_change(maps_at, inputs["frames"])[valid])
    return np.concatenate(found)


def largest_change(maps_at: Callable[[Array], np.ndarray], frames: Array) -> np.ndarray:
    """Returns the largest relative change of maps over the draws, float64 [B].

    Args:
      maps_at: frames -> maps [B, ...].
      frames: float [B,T,H,W,3], model inputs. 0 where a map is 0 and stays so, infinite where
        noise alone makes one.
    """
    before = np.float64(maps_at(frames)).reshape(len(frames), -1)
    size = np.linalg.norm(before, axis=1)
    largest = np.zeros(len(frames))
    for draw in range(DRAWS):
        after = np.float64(maps_at(_disturbed(frames, draw))).reshape(before.shape)
        change = np.linalg.norm(after - before, axis=1)
        relative = np.where(change > 0, np.inf, 0.0)
        np.divide(change, size, out=relative, where=size > 0)
        largest = np.maximum(largest, relative)
    return largest


@functools.partial(jax.jit, static_argnums=1)
def _disturbed(frames: Array, draw: int) -> Array:
    axes = tuple(range(1, frames.ndim))
    width = RADIUS * (frames.max(axes, keepdims=True) - frames.min(axes, keepdims=True))
    # The same noise for every clip: a clip's measure does not depend on the rest of its batch.
    key = jax.random.key(draw)
    return frames + width * jax.random.uniform(key, frames.shape[1:], minval=-1, maxval=1)[None]
