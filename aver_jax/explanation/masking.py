"""Occlusion of tubelets (one patch of one frame each), on the device and inside a jitted step.

What stands in for an occluded place decides what is measured: black is an edge and a change of
brightness that no face has; the clip's mean colour keeps the brightness; a blur keeps the coarse
picture and takes the detail away.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

BASELINES = ("black", "mean", "blur")
# Standard deviation of the blur as a share of the frame's side: no feature of a face is left.
BLUR = 0.1


def occlude(frames: Array, mask: Array, baseline: str) -> Array:
    """Returns frames with the masked tubelets replaced, of the type of `frames`.

    Args:
      frames: uint8 or float [B,T,H,W,3].
      mask: bool [B,T,h,w], True where occluded; H and W are multiples of h and w.
      baseline: one of `BASELINES`; static.

    Raises:
      ValueError: for another baseline, or a mask that does not fit the frames.
    """
    return occluded_by(frames, baseline)(mask)


def occluded_by(frames: Array, baseline: str) -> Callable[[Array], Array]:
    """Returns `occlude` of these frames as a function of the mask: the baseline is made once."""
    instead = substitute(frames, baseline)
    return lambda mask: jnp.where(pixels_of(mask, frames.shape), instead, frames)


def pixels_of(mask: Array, shape: tuple[int, ...]) -> Array:
    """Returns a mask of tubelets [B,T,h,w] for every pixel of frames of a shape: [B,T,H,W,1]."""
    batch, frames, height, width = shape[:4]
    rows, columns = mask.shape[2:]
    fits = mask.shape[:2] == (batch, frames) and not height % rows and not width % columns
    if not fits:
        raise ValueError(
            f"mask is {list(mask.shape)} and the frames {list(shape)}; expected [{batch},{frames},"
            f"h,w] with h and w that divide {height} and {width}"
        )
    mask = jnp.repeat(mask, height // rows, axis=2)
    return jnp.repeat(mask, width // columns, axis=3)[..., None]


def substitute(frames: Array, baseline: str) -> Array:
    """Returns what stands in for occluded places, [B,T,H,W,3] or what broadcasts to it.

    Args:
      frames: as in `occlude`.
      baseline: `black` is 0, `mean` the mean colour of the clip, `blur` each frame blurred by a
        Gaussian of `BLUR` of its side (over its edges the frame is mirrored).
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline is {baseline!r}; expected one of {', '.join(BASELINES)}")
    if baseline == "black":
        return jnp.zeros((1,) * frames.ndim, frames.dtype)
    values = frames.astype(jnp.float32)
    if baseline == "mean":
        # One axis at a time: a float32 sum over a whole clip loses digits.
        for axis in (-2, -3, -4):
            values = jnp.mean(values, axis, keepdims=True)
    else:
        # One product per side: a convolution as wide as this is slower.
        down, across = (_blur_matrix(side) for side in frames.shape[2:4])
        values = jnp.einsum("yY,btYXc,xX->btyxc", down, values, across)
    integers = jnp.issubdtype(frames.dtype, jnp.integer)
    return (jnp.round(values) if integers else values).astype(frames.dtype)


def _blur_matrix(side: int) -> Array:
    """Returns float32 [side, side] with rows that sum to 1: a Gaussian, mirrored at the ends."""
    places = jnp.arange(side, dtype=jnp.float32)
    wide = jnp.arange(-side, 2 * side, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * ((places[:, None] - wide[None]) / (BLUR * side)) ** 2)
    first, middle, last = jnp.split(weights, 3, axis=1)
    folded = first[:, ::-1] + middle + last[:, ::-1]
    return folded / folded.sum(axis=1, keepdims=True)
