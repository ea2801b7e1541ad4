"""Logits of a batch under many masks in one dispatch, masked on the device before the front end.

What is masked is the picture, as if the clip had been filmed so: the normalisation of the front end
sees it too. With `per_clip_change`, which subtracts each pixel's mean over the frames, a tubelet
that is replaced therefore also shows in the other frames of its place.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aver_jax.explanation.masking import occluded_by
from aver_jax.frontend import evaluation_inputs
from aver_jax.input import Batch
from aver_jax.models import inference_form
from aver_jax.runs.run_folder import LoadedRun
from aver_jax.runtime.data_parallel import make_mesh, map_forward, replicated, to_devices, to_host

#: frames uint8 [B,T,H,W,3] -> (mask bool [B,T,h,w] -> uint8 frames); the first part is done once.
Change = Callable[[Array], Callable[[Array], Array]]


class MaskedForward:
    """A run's forward pass over batches, under K masks each, mapped over the devices.

    One dispatch does K forward passes of the batch, one after the other, so that memory is that of
    one pass and the device does not wait for the host in between.

    Args:
      run: a trained model.
      change: what a mask does to the frames, traced; or one of `masking.BASELINES`.
    """

    def __init__(self, run: LoadedRun, change: Change | str):
        self._mesh = make_mesh()
        model = inference_form(run.model, self._mesh.devices.flat[0].platform)
        config = run.config
        change = (
            functools.partial(occluded_by, baseline=change) if isinstance(change, str) else change
        )

        def forward(variables: Any, batch: dict[str, Array]) -> Array:
            masked = change(batch["frames"])

            def of_mask(mask: Array) -> Array:
                changed = batch | {"frames": masked(mask)}
                inputs = evaluation_inputs(config, changed)
                return jnp.float32(model.apply(variables, inputs, train=False)[0])

            masks = jnp.moveaxis(batch.pop("masks"), 1, 0)
            return jnp.moveaxis(jax.lax.map(of_mask, masks), 0, 1)

        self._jitted = map_forward(
            lambda variables, batch: forward(variables, dict(batch)),
            self._mesh,
            model.compiler_options,
        )
        self._variables = jax.device_put(run.variables, replicated(self._mesh))

    def __call__(
        self, batches: Iterable[Batch], masks: np.ndarray, done: Callable[[int], object] = id
    ) -> np.ndarray:
        """Returns logits float32 [n,K,C] of the batches' clips, in their order.

        Args:
          batches: evaluation batches whose clips are n in all, padding (mask False) left out.
          masks: bool [n,K,T,h,w].
          done: told the number of masked clips (clips x K) after each batch.
        """
        found, pending, first = [], None, 0
        for batch in batches:
            valid = batch["mask"]
            # The last batch is filled up; what fills it may be masked as any clip.
            places = np.minimum(first + np.arange(len(valid)), len(masks) - 1)
            output = self._jitted(
                self._variables, to_devices(batch | {"masks": masks[places]}, self._mesh)
            )
            first += int(valid.sum())
            # The device works on this batch while the one before it is read.
            if pending is not None:
                found.append(to_host(pending[0])[pending[1]])
                done(found[-1].shape[0] * masks.shape[1])
            pending = output, valid
        if pending is not None:
            found.append(to_host(pending[0])[pending[1]])
            done(found[-1].shape[0] * masks.shape[1])
        return np.concatenate(found)
