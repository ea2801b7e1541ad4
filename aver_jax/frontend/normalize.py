"""Normalisation of frames to what a model expects."""

import jax.numpy as jnp
from jax import Array

# Mean and standard deviation of R, G, B on a 0..1 scale.
CHANNEL_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # The official TimeSformer code.
    "timesformer": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    # Older Hugging Face ports of TimeSformer.
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
NORMALIZATIONS = ("per_clip", "per_clip_change", *CHANNEL_STATISTICS)

# Of `per_clip_change`: what a talking face changes has about a quarter of the picture's deviation.
CHANGE_GAIN = 4.0
# In grey levels of 255. A clip of one colour is left near zero, instead of its noise blown up.
SMALLEST_DEVIATION = 1.0


def normalized(frames: Array, normalization: str) -> Array:
    """Returns frames scaled for a model: float32 [..., T, H, W, 3].

    Args:
      frames: [..., T, H, W, 3], uint8 or float, RGB in 0..255.
      normalization: `per_clip` subtracts the mean and divides by the standard deviation of each
        colour over all frames and pixels of its clip, so that light, camera and skin tone weigh
        less while brightness still moves from frame to frame; `per_clip_change` also subtracts the
        mean of each pixel over the clip's frames, so that what stays (who it is, how the face
        rests, the room) goes and what changes is left; `imagenet`, `timesformer` and
        `half` use fixed statistics.

    Raises:
      ValueError: for another name.
    """
    frames = frames.astype(jnp.float32)
    if normalization in ("per_clip", "per_clip_change"):
        mean = _clip_mean(frames)
        centred = frames - mean
        deviation = jnp.sqrt(_clip_mean(centred * centred))
        scaled = centred / jnp.maximum(deviation, SMALLEST_DEVIATION)
        if normalization == "per_clip":
            return scaled
        return CHANGE_GAIN * (scaled - jnp.mean(scaled, axis=-4, keepdims=True))
    if normalization not in CHANNEL_STATISTICS:
        raise ValueError(
            f"frontend.normalization is {normalization!r}; expected one of "
            f"{', '.join(NORMALIZATIONS)}"
        )
    mean, deviation = (jnp.asarray(x, jnp.float32) for x in CHANNEL_STATISTICS[normalization])
    leading = (1,) * (frames.ndim - 1)
    return (frames / 255 - mean.reshape(*leading, 3)) / deviation.reshape(*leading, 3)


def _clip_mean(x: Array) -> Array:
    # One axis at a time: a float32 sum over a whole clip (400,000 values) loses digits.
    for axis in (-2, -3, -4):
        x = jnp.mean(x, axis=axis, keepdims=True)
    return x
