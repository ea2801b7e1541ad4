"""A model's forward pass over batches of a dataset, mapped over the devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from aver_jax.config import to_json
from aver_jax.frontend import evaluation_inputs
from aver_jax.models import inference_form
from aver_jax.runtime.data_parallel import map_forward, to_devices

Batch = dict[str, np.ndarray]
# Compiled functions stay in memory: enough for the networks of a study, one after the other.
_KEPT = 16
_BRANCH = "logits_"


class Forward:
    """A model's forward pass, mapped over the devices and compiled once per batch shape.

    Args:
      model: a flax module.
      config: the experiment; `config.frontend` is read.
      mesh: from `make_mesh`.
      features: whether to give the tap "features" too.

    Attributes:
      jitted: the compiled function, which takes a batch that is laid over the devices.
    """

    def __init__(self, model: Any, config: Any, mesh: jax.sharding.Mesh, features: bool = False):
        def of_one_device(variables, batch):
            logits, taps = model.apply(variables, evaluation_inputs(config, batch), train=False)
            branches = {
                name.removeprefix(_BRANCH): value
                for name, value in taps.items()
                if name.startswith(_BRANCH)
            }
            # Row and mask go along, so that every process can gather all of them with the logits.
            output = {"logits": logits, "row": batch["row"], "mask": batch["mask"]}
            output["branches"] = branches
            return output | ({"features": taps["features"]} if features else {})

        self._mesh = mesh
        self.jitted = map_forward(of_one_device, mesh, model.compiler_options)

    def __call__(self, variables: Any, batch: Batch) -> dict[str, Any]:
        """Dispatches one batch.

        Args:
          variables: of the model, replicated over the mesh.
          batch: this process' part of a batch, on the host.

        Returns:
          logits [B, C], row int32 [B], mask bool [B], branches (a dict of logits [B, C], by the
          taps "logits_BRANCH") and, if asked for, features float32 [B, D]; on the devices, perhaps
          still computing.
        """
        return self.jitted(variables, to_devices(batch, self._mesh))


def compiled_forward(
    model: Any, config: ConfigDict, mesh: jax.sharding.Mesh, features: bool = False
) -> Forward:
    """Returns the forward pass of evaluation, the same one for equal models and front ends.

    Args:
      model: a flax module, compared by its fields.
      config: the experiment; `config.frontend` is read and nothing else.
      mesh: from `data_parallel.make_mesh`.
      features: as in `Forward`.
    """
    inference = inference_form(model, mesh.devices.flat[0].platform)
    return _forward(inference, _frontend_of(config), mesh, features)


def compiled_inputs(config: ConfigDict, mesh: jax.sharding.Mesh) -> Callable[..., dict[str, Any]]:
    """Returns `evaluation_inputs` of `(variables, batch)`, mapped; one for equal front ends.

    Args:
      config: the experiment; `config.frontend` is read and nothing else.
      mesh: from `data_parallel.make_mesh`.
    """
    return _inputs(_frontend_of(config), mesh)


def _frontend_of(config: ConfigDict) -> FrozenConfigDict:
    return FrozenConfigDict({"frontend": to_json(config)["frontend"]})


@functools.lru_cache(_KEPT)
def _inputs(config: FrozenConfigDict, mesh: jax.sharding.Mesh) -> Callable[..., dict[str, Any]]:
    return map_forward(lambda _, batch: evaluation_inputs(config, batch), mesh)


_forward = functools.lru_cache(_KEPT)(Forward)
