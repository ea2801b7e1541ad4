"""ResNet variables from PyTorch checkpoints, in numpy alone.

Read are torchvision's names, which timm and most training code share, and those of Hugging Face's
ResNetModel, of networks of basic blocks: ResNet-18 and -34, and 3D-ResNets with the same names.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from aver_jax.models.weights.torch_tensors import (
    CheckpointError,
    disagreements,
    listed,
    plain_tensors,
)

# Counts of batches, which a fixed decay does not need.
_COUNTER = "num_batches_tracked"
# Hugging Face's parts of a block -> torchvision's.
_INNER = (
    ("layer.0.convolution.", "conv1."),
    ("layer.0.normalization.", "bn1."),
    ("layer.1.convolution.", "conv2."),
    ("layer.1.normalization.", "bn2."),
    ("layer.2.convolution.", "conv3."),
    ("layer.2.normalization.", "bn3."),
    ("shortcut.convolution.", "downsample.0."),
    ("shortcut.normalization.", "downsample.1."),
)
# torchvision's part of a norm -> collection and name of ours.
_NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


@dataclasses.dataclass(frozen=True)
class ConvertedResNet:
    """Variables read from a checkpoint and the network they belong to.

    Attributes:
      fields: stage_sizes, width, stem and dims of `ResNet`.
      variables: "params" and "batch_stats", float32 numpy arrays.
      notes: one line for everything that was not taken over as it was.
    """

    fields: dict[str, Any]
    variables: dict[str, Any]
    notes: tuple[str, ...]


def convert_resnet(checkpoint: Mapping[str, Any], channels: int | None = None) -> ConvertedResNet:
    """Returns the ResNet that a PyTorch checkpoint holds; its classifier is dropped.

    Args:
      checkpoint: names to numpy arrays, or a dict that holds them under a root key, such as
        `state_dict` or `model`.
      channels: of the input; default: the checkpoint's. From colours to one channel, the kernels
        of the first layer are summed over the colours, as if every colour held the one channel;
        from one channel to colours, every colour gets an equal share, so that grey stays grey.

    Raises:
      CheckpointError: missing, unexpected or misshaped names, or another architecture.
    """
    tensors = _torchvision_names(plain_tensors(checkpoint))
    notes = []
    if dropped := sorted(name for name in tensors if name.startswith("fc.")):
        tensors = {name: value for name, value in tensors.items() if name not in dropped}
        notes.append("the classifier is dropped")
    fields = _fields(tensors)
    found = tensors["conv1.weight"].shape[1]
    if reasons := disagreements(tensors, _shapes(fields, found)):
        raise CheckpointError("keys of the checkpoint " + "; ".join(reasons))
    if channels not in (None, found):
        kernel, note = _of_channels(tensors["conv1.weight"], channels)
        tensors["conv1.weight"] = kernel
        notes.append(note)
    return ConvertedResNet(fields, _variables(tensors), tuple(notes))


def _torchvision_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    named = {name: value for name, value in tensors.items() if not name.endswith(_COUNTER)}
    if not any(name.removeprefix("resnet.").startswith("embedder.") for name in named):
        return named
    return {_torchvision_name(name.removeprefix("resnet.")): x for name, x in named.items()}


def _torchvision_name(hugging_face: str) -> str:
    if match := re.match(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", hugging_face):
        part = hugging_face[match.end() :]
        for theirs, ours in _INNER:
            if part.startswith(theirs):
                return f"layer{int(match[1]) + 1}.{match[2]}.{ours}{part.removeprefix(theirs)}"
        return hugging_face
    name = re.sub(r"^embedder\.embedder\.convolution\.", "conv1.", hugging_face)
    name = re.sub(r"^embedder\.embedder\.normalization\.", "bn1.", name)
    return re.sub(r"^classifier\.\d+\.", "fc.", name)


def _fields(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the fields that names and shapes tell; whether all are there is checked later."""
    blocks = [re.match(r"layer(\d+)\.(\d+)\.(conv3\.)?", name) for name in tensors]
    if any(match and match[3] for match in blocks):
        raise CheckpointError(
            "the blocks have three convolutions, as in ResNet-50 and larger; expected the basic "
            "blocks of ResNet-18 or -34, of two"
        )
    stages: dict[int, set[str]] = {}
    for match in filter(None, blocks):
        stages.setdefault(int(match[1]), set()).add(match[2])
    kernel = tensors.get("conv1.weight")
    if kernel is None or not stages or sorted(stages) != list(range(1, len(stages) + 1)):
        found = f"stages {sorted(stages)}" if kernel is not None else listed(sorted(tensors))
        raise CheckpointError(
            f"no ResNet: expected conv1.weight, layer1.0.conv1.weight and so on, found {found}"
        )
    if kernel.ndim not in (4, 5) or set(kernel.shape[2:]) != {7}:
        raise CheckpointError(
            f"conv1.weight is {kernel.shape}, expected [width, channels, 7, 7], or with one 7 more "
            "of a 3D-ResNet"
        )
    return {
        "stage_sizes": tuple(len(stages[stage]) for stage in sorted(stages)),
        "width": kernel.shape[0],
        "stem": "conv7",
        "dims": kernel.ndim - 2,
    }


def _shapes(fields: Mapping[str, Any], channels: int) -> dict[str, tuple[int, ...]]:
    """Returns the name and shape of every tensor of the network, in torch's layout."""
    shapes: dict[str, tuple[int, ...]] = {}

    def put(conv: str, norm: str, features: int, inputs: int, size: int) -> None:
        shapes[f"{conv}.weight"] = (features, inputs, *(size,) * fields["dims"])
        shapes.update({f"{norm}.{part}": (features,) for part in _NORM})

    inputs = fields["width"]
    put("conv1", "bn1", inputs, channels, 7)
    for stage, blocks in enumerate(fields["stage_sizes"]):
        features = fields["width"] * 2**stage
        for block in range(blocks):
            place = f"layer{stage + 1}.{block}"
            put(f"{place}.conv1", f"{place}.bn1", features, inputs, 3)
            put(f"{place}.conv2", f"{place}.bn2", features, features, 3)
            if stage and not block:
                put(f"{place}.downsample.0", f"{place}.downsample.1", features, inputs, 1)
            inputs = features
    return shapes


def _of_channels(kernel: np.ndarray, channels: int) -> tuple[np.ndarray, str]:
    """Returns a first kernel [D, C, ...] for another number of channels, and what was done."""
    found = kernel.shape[1]
    if channels == 1:
        note = f"the first layer's kernels are summed over the {found} channels of the checkpoint"
        return kernel.sum(1, keepdims=True), note
    if found == 1:
        note = f"the first layer's kernels are shared out equally among {channels} channels"
        return np.repeat(kernel / channels, channels, axis=1), note
    raise CheckpointError(f"conv1.weight takes {found} channels, expected {channels} or 1")


def _variables(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns checked tensors as the variables of a `ResNet`."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, value in tensors.items():
        name = re.sub(r"^(layer\d+)\.(\d+)\.", r"\1_\2.", name)
        name = name.replace("downsample.0", "downsample_conv").replace(
            "downsample.1", "downsample_bn"
        )
        *modules, part = name.split(".")
        collection, ours = _NORM[part]
        if value.ndim > 1:
            # [out, in, ...] -> [..., in, out]
            ours, value = "kernel", np.moveaxis(value, (1, 0), (-2, -1))
        place = variables[collection]
        for module in modules:
            place = place.setdefault(module, {})
        place[ours] = np.ascontiguousarray(value)
    return variables
