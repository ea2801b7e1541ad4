"""Names of TimeSformer's tensors in PyTorch checkpoints, brought to the official code's."""

import re
from collections.abc import Mapping

import numpy as np

# Official name -> Hugging Face's, outside the layers and inside one.
_OUTER = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "time_embed": "embeddings.time_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "head": "classifier",
}
_INNER = {
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


def official_names(tensors: Mapping[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the family and the tensors under the official code's names, where there is one."""
    if any(name.removeprefix("timesformer.") == "embeddings.cls_token" for name in tensors):
        return "hugging_face", {_official_name(name): value for name, value in tensors.items()}
    temporal = any(name.startswith("time_embed") or ".temporal_" in name for name in tensors)
    # A space-only official model has the names of an image ViT, and is one.
    return ("official" if temporal else "image_vit"), dict(tensors)


def _official_name(hugging_face: str) -> str:
    name = hugging_face.removeprefix("timesformer.")
    prefix, names = "", _OUTER
    if match := re.match(r"encoder\.layer\.(\d+)\.", name):
        prefix, names, name = f"blocks.{match[1]}.", _INNER, name[match.end() :]
    for official, other in names.items():
        if name in (other, f"{other}.weight", f"{other}.bias"):
            return prefix + official + name.removeprefix(other)
    return hugging_face


def family_name(official: str, family: str) -> str:
    """Returns the name that a family of checkpoints gives to an official name."""
    if family != "hugging_face":
        return official
    prefix, names, name = "timesformer.", _OUTER, official
    if match := re.match(r"blocks\.(\d+)\.", name):
        prefix, names, name = f"{prefix}encoder.layer.{match[1]}.", _INNER, name[match.end() :]
    for part, other in names.items():
        if name in (part, f"{part}.weight", f"{part}.bias"):
            # The classifier alone lies outside Hugging Face's backbone.
            return ("" if part == "head" else prefix) + other + name.removeprefix(part)
    return official


def trained_attention(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the attention type that official names tell."""
    if any(".temporal_" in name for name in tensors):
        return "divided_space_time"
    return "joint_space_time" if "time_embed" in tensors else "space_only"
