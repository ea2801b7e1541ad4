"""Networks by name, and their initial variables."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.models.timesformer import TimeSformer

MODELS: dict[str, type[nn.Module]] = {"timesformer": TimeSformer}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(config_model: Mapping[str, Any], num_classes: int) -> nn.Module:
    """Return the module that a config describes.

    Args:
      config_model: "name" (a key of `MODELS`), optionally "dtype" (a key of `DTYPES`), and fields
        of the module.
      num_classes: number of logits.

    Raises:
      ValueError: an unknown name, field or dtype, or fields that do not fit together.
    """
    fields = dict(config_model)
    name = fields.pop("name", None)
    if name not in MODELS:
        raise ValueError(f"model.name is {name!r}, expected one of {sorted(MODELS)}")
    known = {field.name for field in dataclasses.fields(MODELS[name])}
    known -= {"num_classes", "parent", "name"}
    if unknown := sorted(fields.keys() - known):
        raise ValueError(f"model {name} has no field {unknown}; it has {sorted(known)}")
    if "dtype" in fields:
        if fields["dtype"] not in DTYPES:
            raise ValueError(
                f"model.dtype is {fields['dtype']!r}, expected one of {sorted(DTYPES)}"
            )
        fields["dtype"] = DTYPES[fields["dtype"]]
    return MODELS[name](num_classes=num_classes, **fields)


def init_variables(model: nn.Module, key: jax.Array) -> dict[str, Any]:
    """Return fresh variables of a model, drawn in one compiled call.

    Args:
      model: a module with `input_shapes(batch_size)`.
      key: a typed PRNG key.
    """

    def drawn(key: jax.Array) -> dict[str, Any]:
        zeros = {name: jnp.zeros(s.shape, s.dtype) for name, s in model.input_shapes(1).items()}
        return model.init(key, zeros)

    return jax.jit(drawn)(key)


def with_axis(model: nn.Module, axis_name: str) -> nn.Module:
    """Return the model with its batch statistics taken over a mapped axis, where it has any."""
    fields = {field.name for field in dataclasses.fields(model)}
    return model.clone(axis_name=axis_name) if "axis_name" in fields else model


def auxiliary_logits(model: nn.Module) -> tuple[str, ...]:
    """Return the taps whose cross-entropies are added to the loss in training."""
    return tuple(getattr(model, "auxiliary_logits", ()))
