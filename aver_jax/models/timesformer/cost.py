"""Multiply-adds of a TimeSformer as published, whatever it is computed by."""

from typing import Any


def multiply_adds(model: Any) -> int:
    """Returns the multiply-adds of products and convolutions of one clip's forward pass.

    They are those of Bertasius et al. (2021): the layers as written, without copies of the cls
    token, filled rows, or two matrices multiplied into one. What a step should need is measured by
    them.

    Args:
      model: a `TimeSformer`.
    """
    width, frames = model.width, model.num_frames
    patches = (model.image_size // model.patch_size) ** 2

    def projections(tokens: int) -> int:
        return 4 * tokens * width**2

    def attention(rows: int, tokens: int) -> int:
        return projections(rows * tokens) + 2 * rows * tokens**2 * width

    tokens = 1 + patches * frames
    if model.attention == "divided_space_time":
        layer = attention(patches, frames) + patches * frames * width**2
        layer += attention(frames, 1 + patches)
    elif model.attention == "joint_space_time":
        layer = attention(1, tokens)
    else:
        layer, tokens = attention(frames, 1 + patches), frames * (1 + patches)
    layer += 2 * tokens * width * round(width * model.mlp_ratio)
    return model.depth * layer + _embedding(model) + width * model.num_classes


def _embedding(model: Any) -> int:
    """Returns the multiply-adds of the convolutions before the patches, and of the patches."""
    total, channels, side = 0, 3, model.image_size
    for index in range(model.stem):
        made, side = max(1, model.width >> (model.stem - 1 - index)), side // 2
        total += side**2 * 9 * channels * made
        channels = made
    size = model.patch_size // 2**model.stem
    patches = (model.image_size // model.patch_size) ** 2
    return model.num_frames * (total + patches * size**2 * channels * model.width)
