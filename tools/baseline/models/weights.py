"""Flat aver_jax variables as the state of the torch models, and where each tensor came from."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

# aver_jax's name of a layer of TimeSformer -> transformers', outside the blocks and inside one.
# Not those of `aver_jax.models.weights.timesformer_names`: importing `aver_jax.models` loads jax
# into the process whose memory and threads are measured.
_TRANSFORMERS_OUTER = {
    "cls_token": "timesformer.embeddings.cls_token",
    "pos_embed": "timesformer.embeddings.position_embeddings",
    "time_embed": "timesformer.embeddings.time_embeddings",
    "patch_embed.proj": "timesformer.embeddings.patch_embeddings.projection",
    "norm": "timesformer.layernorm",
    "head": "classifier",
}
_TRANSFORMERS_INNER = {
    "temporal_norm1": "temporal_layernorm",
    "temporal_attn.qkv": "temporal_attention.attention.qkv",
    "temporal_attn.proj": "temporal_attention.output.dense",
    "temporal_fc": "temporal_dense",
    "norm1": "layernorm_before",
    "attn.qkv": "attention.attention.qkv",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "input_kernel": "weight_ih_l0",
    "recurrent_kernel": "weight_hh_l0",
}

State = dict[str, tuple[str, Tensor]]
"""A torch model's tensors by name: the aver_jax variable each comes from, and its value."""


def timesformer_state(variables: Mapping[str, np.ndarray]) -> State:
    """Returns the state of `timesformer.TimeSformer`; the layers are unstacked.

    The patch embedding is a linear layer over pixels in (row, column, colour) order.
    """
    state: State = {}
    for name, value in variables.items():
        parts = name.removeprefix("params/").split("/")
        if parts[0] == "blocks":
            for layer, of_layer in enumerate(value):
                torch_name = ".".join(["blocks", str(layer), *parts[1:-1], _LEAVES[parts[-1]]])
                state[torch_name] = (name, _transposed(of_layer))
        elif parts[0] == "patch_embed":
            flat = value.reshape(-1, value.shape[-1]) if value.ndim == 4 else value
            state[f"patch_embed.proj.{_LEAVES[parts[-1]]}"] = (name, _transposed(flat))
        elif len(parts) == 1:
            state[name.removeprefix("params/")] = (name, torch.tensor(value))
        else:
            state[".".join([*parts[:-1], _LEAVES[parts[-1]]])] = (name, _transposed(value))
    return state


def transformers_state(variables: Mapping[str, np.ndarray]) -> State:
    """Returns the state of transformers' TimesformerForVideoClassification."""
    state: State = {}
    for name, (source, value) in timesformer_state(variables).items():
        if name in _TRANSFORMERS_OUTER:
            state[_TRANSFORMERS_OUTER[name]] = (source, value)
            continue
        layer, _, leaf = name.rpartition(".")
        if name == "patch_embed.proj.weight":
            # A convolution there: [D, 3, rows, columns].
            value = torch.tensor(variables[source]).permute(3, 2, 0, 1).contiguous()
        if layer.startswith("blocks."):
            _, number, part = layer.split(".", 2)
            layer = f"timesformer.encoder.layer.{number}.{_TRANSFORMERS_INNER[part]}"
        else:
            layer = _TRANSFORMERS_OUTER[layer]
        state[f"{layer}.{leaf}"] = (source, value)
    return state


def resnet_state(variables: Mapping[str, np.ndarray]) -> State:
    """Returns the state of `resnet_lstm.ResNetLstm` and `mrpn.Mrpn`; the tree is aver_jax's."""
    state: State = {}
    for name, value in variables.items():
        _, *modules, leaf = name.split("/")
        torch_leaf = _LEAVES[leaf]
        if modules[-2:] == ["aggregator", "forward"]:
            modules = modules[:-1]
            torch_leaf = "bias_ih_l0" if leaf == "bias" else torch_leaf
        state[".".join([*modules, torch_leaf])] = (name, _transposed(value))
    return state


def load(model: nn.Module, state: State) -> None:
    """Copies a state into a model.

    Raises:
      KeyError: a tensor of the model has no source, or a source no tensor.
    """
    found = model.load_state_dict({name: value for name, (_, value) in state.items()}, strict=False)
    # Counts of batches are not read at a fixed momentum; the second bias of an LSTM stays 0.
    missing = [
        name
        for name in found.missing_keys
        if not name.endswith(("num_batches_tracked", "bias_hh_l0"))
    ]
    if missing or found.unexpected_keys:
        raise KeyError(
            f"weights do not fit the {type(model).__name__}: it lacks {missing[:4]}, and has no "
            f"{found.unexpected_keys[:4]}"
        )


def parameter_groups(
    model: nn.Module, state: State, decayed: Iterable[str], weight_decay: float
) -> list[dict]:
    """Returns AdamW's two groups: the parameters whose variable decays, and the others."""
    decayed = set(decayed)
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[state[name][0] in decayed].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0}
        for decays, parameters in groups.items()
        if parameters
    ]


def _transposed(value: np.ndarray) -> Tensor:
    """Transposes [in, out] to [out, in], [rows, columns, in, out] to [out, in, rows, columns]."""
    tensor = torch.tensor(value)
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor
