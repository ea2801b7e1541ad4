"""TimeSformer parameters from PyTorch checkpoints, in numpy alone.

Three families of names are read: the official code's, Hugging Face's, and those of timm's image
ViT, whose spatial attention and norm are copied into the temporal ones as the official code does.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from aver_jax.models.timesformer.resize import resized_pos_embed, resized_time_embed
from aver_jax.models.timesformer.timesformer import ATTENTION_TYPES
from aver_jax.models.weights.timesformer_names import family_name, official_names, trained_attention
from aver_jax.models.weights.torch_tensors import (
    CheckpointError,
    disagreements,
    listed,
    plain_tensors,
)

_DENSE = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_TEMPORAL_DENSE = ("temporal_attn.qkv", "temporal_attn.proj", "temporal_fc")


@dataclasses.dataclass(frozen=True)
class Converted:
    """Parameters read from a checkpoint and the model they belong to.

    Attributes:
      family: "official", "hugging_face" or "image_vit".
      fields: fields of `TimeSformer`, num_classes included.
      params: its parameters, float32 numpy arrays.
      notes: one line for everything that was not taken over as it was.
    """

    family: str
    fields: dict[str, Any]
    params: dict[str, Any]
    notes: tuple[str, ...]


def convert(
    checkpoint: Mapping[str, Any],
    *,
    attention: str | None = None,
    num_heads: int | None = None,
    image_size: int | None = None,
    num_frames: int | None = None,
    new_head: int | None = None,
) -> Converted:
    """Returns the parameters that a PyTorch checkpoint holds, and the fields of their model.

    Args:
      checkpoint: names to numpy arrays, or a dict that holds them under a root key, `model`,
        `module` or `model_state`.
      attention: of the model; default: what the checkpoint was trained with, and for an image
        ViT, divided_space_time.
      num_heads: default: one per 64 features, as in every official model and ViT.
      image_size: default: the checkpoint's. Another one resizes pos_embed over its grid.
      num_frames: default: the checkpoint's, and 8 where it has no time embeddings. Another one
        resizes time_embed.
      new_head: number of classes of a newly drawn head; a head in the checkpoint is dropped.

    Raises:
      CheckpointError: missing, unexpected or misshaped keys, or options that do not fit.
    """
    family, tensors = official_names(plain_tensors(checkpoint))
    fields = _fields(tensors, family)
    notes = []
    trained = trained_attention(tensors)
    if family == "image_vit":
        fields["attention"] = attention or ATTENTION_TYPES[0]
        tensors, fields["num_frames"] = _from_image_vit(tensors, fields, num_frames or 8, notes)
    else:
        fields["attention"] = trained
        if attention not in (None, trained):
            raise CheckpointError(f"the checkpoint's attention is {trained}, not {attention}")
        time_embed = tensors.get("time_embed")
        fields["num_frames"] = (num_frames or 8) if time_embed is None else time_embed.shape[1]
    fields["num_heads"] = num_heads or fields["width"] // 64
    if not fields["num_heads"] or fields["width"] % fields["num_heads"]:
        raise CheckpointError(
            f"a width of {fields['width']} does not divide into {fields['num_heads']} heads; "
            "say how many there are"
        )
    if new_head:
        tensors = _with_new_head(tensors, fields["width"], new_head, notes)
    _check(tensors, fields, family)

    if image_size and image_size != fields["image_size"]:
        if image_size % fields["patch_size"]:
            raise CheckpointError(
                f"image size {image_size} is not a multiple of the patch size "
                f"{fields['patch_size']}"
            )
        old, new = (size // fields["patch_size"] for size in (fields["image_size"], image_size))
        tensors["pos_embed"] = resized_pos_embed(tensors["pos_embed"], new)
        fields["image_size"] = image_size
        notes.append(f"pos_embed resized from {old}x{old} to {new}x{new} patches (bicubic)")
    if num_frames and num_frames != fields["num_frames"]:
        notes.append(f"time_embed resized from {fields['num_frames']} to {num_frames} (linear)")
        tensors["time_embed"] = resized_time_embed(tensors["time_embed"], num_frames)
        fields["num_frames"] = num_frames
    fields["num_classes"] = tensors["head.bias"].shape[0]
    return Converted(family, fields, _params(tensors, fields), tuple(notes))


def _fields(tensors: Mapping[str, np.ndarray], family: str) -> dict[str, Any]:
    """Returns the fields that shapes tell."""
    needed = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "norm.weight": 1}
    needed["blocks.0.mlp.fc1.weight"] = 2
    missing = [family_name(name, family) for name in needed if name not in tensors]
    if missing:
        raise CheckpointError(
            f"missing keys: {listed(missing)}; the checkpoint has {listed(sorted(tensors))}"
        )
    for name, rank in (needed | {"time_embed": 3, "head.weight": 2}).items():
        if name in tensors and tensors[name].ndim != rank:
            shown = family_name(name, family)
            raise CheckpointError(f"{shown} has shape {tensors[name].shape}, expected rank {rank}")
    width = tensors["norm.weight"].shape[0]
    patch_size = tensors["patch_embed.proj.weight"].shape[-1]
    positions = tensors["pos_embed"].shape[1] - 1
    grid = round(positions**0.5)
    if grid * grid != positions:
        raise CheckpointError(
            f"pos_embed has {positions} positions besides cls: expected the square of a number"
        )
    layers = [re.match(r"blocks\.(\d+)\.", name) for name in tensors]
    return {
        "width": width,
        "depth": 1 + max(int(match[1]) for match in layers if match),
        "patch_size": patch_size,
        "image_size": grid * patch_size,
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
    }


def _from_image_vit(
    tensors: Mapping[str, np.ndarray], fields: Mapping[str, Any], frames: int, notes: list[str]
) -> tuple[dict[str, np.ndarray], int]:
    """Returns the tensors of a video model that sees what the image model saw in every frame."""
    out, width = dict(tensors), fields["width"]
    if fields["attention"] != "space_only":
        out["time_embed"] = np.zeros((1, frames, width), np.float32)
        notes.append("time_embed set to zero")
    if fields["attention"] == "divided_space_time":
        for name, value in tensors.items():
            layer, _, rest = name.rpartition(".attn.") if ".attn." in name else ("", "", "")
            if layer:
                out[f"{layer}.temporal_attn.{rest}"] = value
            if ".norm1." in name:
                out[name.replace(".norm1.", ".temporal_norm1.")] = value
        for layer in range(fields["depth"]):
            out[f"blocks.{layer}.temporal_fc.weight"] = np.zeros((width, width), np.float32)
            out[f"blocks.{layer}.temporal_fc.bias"] = np.zeros(width, np.float32)
        notes.append("temporal attention and its norm copied from the spatial ones")
    return out, frames


def _with_new_head(
    tensors: Mapping[str, np.ndarray], width: int, num_classes: int, notes: list[str]
) -> dict[str, np.ndarray]:
    out = dict(tensors)
    old = out.pop("head.weight", None)
    out.pop("head.bias", None)
    found = "none" if old is None else f"one of {old.shape[0]} classes"
    notes.append(f"head newly drawn for {num_classes} classes (the checkpoint had {found})")
    drawn = np.random.default_rng(0).normal(scale=0.02, size=(num_classes, width))
    out["head.weight"] = drawn.astype(np.float32)
    out["head.bias"] = np.zeros(num_classes, np.float32)
    return out


def _shapes(tensors: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, tuple]:
    """Returns the name and shape of every tensor of the model, in torch's layout."""
    width, patch = fields["width"], fields["patch_size"]
    hidden = round(width * fields["mlp_ratio"])
    classes = tensors["head.weight"].shape[0] if "head.weight" in tensors else 0
    shapes: dict[str, tuple] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + (fields["image_size"] // patch) ** 2, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    if fields["attention"] != "space_only":
        shapes["time_embed"] = (1, fields["num_frames"], width)
    outputs = {"attn.qkv": 3 * width, "temporal_attn.qkv": 3 * width, "mlp.fc1": hidden}
    dense, norms = _parts(fields["attention"])
    for layer in range(fields["depth"]):
        for name in dense:
            rows = outputs.get(name, width)
            columns = hidden if name == "mlp.fc2" else width
            shapes[f"blocks.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"blocks.{layer}.{name}.bias"] = (rows,)
        for name in norms:
            shapes[f"blocks.{layer}.{name}.weight"] = (width,)
            shapes[f"blocks.{layer}.{name}.bias"] = (width,)
    return shapes


def _check(tensors: Mapping[str, np.ndarray], fields: Mapping[str, Any], family: str) -> None:
    shapes = _shapes(tensors, fields)
    found = disagreements(tensors, shapes, lambda name: family_name(name, family))
    if (shapes.keys() - tensors.keys()) & {"head.weight", "head.bias"}:
        found.append("a checkpoint without a head needs a new one")
    if found:
        raise CheckpointError("keys of the checkpoint " + "; ".join(found))


def _parts(attention: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the dense layers and the norms of a block."""
    if attention == "divided_space_time":
        return _TEMPORAL_DENSE + _DENSE, ("temporal_norm1", "norm1", "norm2")
    return _DENSE, ("norm1", "norm2")


def _params(tensors: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns checked tensors as the model's parameters, layers stacked."""
    params: dict[str, Any] = {
        "cls_token": tensors["cls_token"],
        "pos_embed": tensors["pos_embed"],
        "patch_embed": {
            "kernel": tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
            "bias": tensors["patch_embed.proj.bias"],
        },
        "blocks": {},
        "norm": {"scale": tensors["norm.weight"], "bias": tensors["norm.bias"]},
        "head": {"kernel": tensors["head.weight"].T, "bias": tensors["head.bias"]},
    }
    if "time_embed" in tensors:
        params["time_embed"] = tensors["time_embed"]
    dense, norms = _parts(fields["attention"])
    for name in dense + norms:
        stack = {
            part: np.stack([tensors[f"blocks.{i}.{name}.{part}"] for i in range(fields["depth"])])
            for part in ("weight", "bias")
        }
        *parents, last = name.split(".")
        place = params["blocks"]
        for parent in parents:
            place = place.setdefault(parent, {})
        weight = stack["weight"]
        if name in norms:
            place[last] = {"scale": weight, "bias": stack["bias"]}
        else:
            place[last] = {"kernel": weight.swapaxes(1, 2), "bias": stack["bias"]}
    return params
