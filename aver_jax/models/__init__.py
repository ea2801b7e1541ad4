"""Networks by name, and their initial variables."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aver_jax.models.fusion.mrpn import Mrpn
from aver_jax.models.model import Model
from aver_jax.models.resnet.resnet_lstm import ResNetLstm
from aver_jax.models.timesformer.timesformer import TimeSformer
from aver_jax.models.timesformer.unstacked import unstack

MODELS: dict[str, type[Model]] = {
    "mrpn": Mrpn,
    "resnet_lstm": ResNetLstm,
    "timesformer": TimeSformer,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(config_model: Mapping[str, Any], num_classes: int | Mapping[str, int]) -> Model:
    """Returns the module that a config describes.

    Args:
      config_model: "name" (a key of `MODELS`), optionally "dtype" (a key of `DTYPES`), and fields
        of the module; a list stands for a tuple.
      num_classes: number of logits; for several targets (not TimeSformer) {target: number}.

    Raises:
      ValueError: an unknown name, field or dtype, or fields that do not fit together.
    """
    fields = dict(config_model)
    name = fields.pop("name", None)
    if name not in MODELS:
        raise ValueError(f"model.name is {name!r}, expected one of {sorted(MODELS)}")
    known = {field.name for field in dataclasses.fields(MODELS[name])}
    known -= {"num_classes", "axis_name", "parent", "name"}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"model {name} has no field {unknown}; it has {sorted(known)}")
    if "dtype" in fields:
        if fields["dtype"] not in DTYPES:
            raise ValueError(
                f"model.dtype is {fields['dtype']!r}, expected one of {sorted(DTYPES)}"
            )
        fields["dtype"] = DTYPES[fields["dtype"]]
    # Modules are arguments of compiled functions, so their fields must have a hash.
    fields = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    return MODELS[name](num_classes=num_classes, **fields)


def inference_form(model: Model, platform: str) -> Model:
    """Returns the network for evaluation, prediction and relevance: training's remat is dropped.

    On accelerators no loop runs over the layers: of TIBAV, 32 clips on an H100, the compiler's
    estimate is 95 ms instead of 122 (remat and loop together). On CPUs the loop is as fast and
    compiles in a third of the time (docs/benchmarks/log.md).

    Args:
      model: a network.
      platform: of the devices that it runs on, as "cpu".
    """
    return model.for_inference(unrolled=platform != "cpu")


def unstacked_layers(model: Model, variables: dict[str, Any]) -> dict[str, Any]:
    """Returns variables with the stacks of parameters that no loop runs over unstacked."""
    params = variables["params"]
    layers = {name: unstack(params[name], number) for name, number in model.unstacked.items()}
    return {**variables, "params": {**params, **layers}}


def init_variables(model: Model, key: jax.Array) -> dict[str, Any]:
    """Returns fresh variables of a model, drawn in one call that is compiled once per model.

    Args:
      model: a module with `input_shapes(batch_size)`.
      key: a typed PRNG key.
    """
    return _drawn(model, key)


@functools.partial(jax.jit, static_argnums=0)
def _drawn(model: Model, key: jax.Array) -> dict[str, Any]:
    zeros = {name: jnp.zeros(s.shape, s.dtype) for name, s in model.input_shapes(1).items()}
    return model.init(key, zeros)
