"""Image augmentation on the device (Chang's thesis, 4.2.2 and 4.4), alike for all frames of a clip.

Flip, crop and affine transform are composed into one matrix and cost one bilinear resampling. They
come first, then blur, contrast and noise: the thesis applies its list in random order, and noise
before the resampling would be smoothed away.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from aver_jax.frontend.fields import check_known

OFF = {
    "flip": 0.0,
    "crop": 0.0,
    "scale": (1.0, 1.0),
    "translate": 0.0,
    "rotate": 0.0,
    "shear": 0.0,
    "blur": 0.0,
    "blur_sigma": 0.0,
    "contrast": (1.0, 1.0),
    "noise": 0.0,
}
"""Every amount, with the value at which its transformation is off (and is not computed).

flip: probability of a mirror image; crop: largest share of the rows, and of the columns, that is
cut away (the rest is stretched to the full size); scale: range of the magnification; translate:
largest shift as a share of the width and height; rotate, shear: largest angle in degrees; blur:
probability of a Gaussian blur, whose sigma is uniform in 0..blur_sigma pixels; contrast: range of
the factor about grey level 128; noise: standard deviation in grey levels (of 255).
"""


class Factors(NamedTuple):
    """The random factors of one clip."""

    matrix: Array  # float32 [2,3]: output pixel (x, y, 1) -> source pixel (x, y)
    sigma: Array  # float32 []: of the blur, in pixels; 0 leaves the frames sharp
    contrast: Array  # float32 []
    noise_key: Array  # typed key []


def checked_amounts(augment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all amounts of `OFF`, taken from `augment` where it has them.

    Raises:
      ValueError: for an unknown name, or a value out of its range.
    """
    check_known("frontend.augment", augment, OFF)
    amounts = {name: augment.get(name, off) for name, off in OFF.items()}
    for name in ("scale", "contrast"):
        pair = amounts[name]
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and 0 < pair[0] <= pair[1]):
            raise ValueError(
                f"frontend.augment.{name} is {pair}; expected (low, high) with 0 < low <= high, "
                "(1, 1) being off"
            )
        amounts[name] = (float(pair[0]), float(pair[1]))
    # Half the picture cropped away, and half a turn, are where these stop making sense.
    limits = {"flip": 1, "blur": 1, "crop": 0.5, "translate": 1, "rotate": 180, "shear": 45}
    limits |= {"blur_sigma": 10, "noise": 255}
    for name, largest in limits.items():
        if not 0 <= amounts[name] <= largest:
            raise ValueError(
                f"frontend.augment.{name} is {amounts[name]}; expected 0 (off) to {largest}"
            )
        amounts[name] = float(amounts[name])
    return amounts


def random_factors(key: Array, amounts: Mapping[str, Any], height: int, width: int) -> Factors:
    """Draws factors for one clip of height x width pixels; `amounts` are of `checked_amounts`.

    Each factor has its own place among the draws, so that turning one off leaves the others as
    they were.
    """
    factor_key, noise_key = jax.random.split(key)
    # One draw for all: it compiles ten times faster than one for each.
    draws = iter(jax.random.uniform(factor_key, (13,), jnp.float32))

    def uniform(low: float, high: float) -> Array:
        return low + (high - low) * next(draws)

    mirror = jnp.where(uniform(0, 1) < amounts["flip"], -1.0, 1.0)
    cut_x, cut_y = uniform(0, amounts["crop"]), uniform(0, amounts["crop"])
    # Centre of the kept window, as a share of the size, from the centre of the frame.
    window_x, window_y = uniform(-0.5, 0.5) * cut_x, uniform(-0.5, 0.5) * cut_y
    scale = uniform(*amounts["scale"])
    shift_x = uniform(-amounts["translate"], amounts["translate"])
    shift_y = uniform(-amounts["translate"], amounts["translate"])
    angle = uniform(-amounts["rotate"], amounts["rotate"]) * (math.pi / 180)
    slant = jnp.tan(uniform(-amounts["shear"], amounts["shear"]) * (math.pi / 180))
    blurred = uniform(0, 1) < amounts["blur"]
    sigma = jnp.where(blurred, uniform(0, amounts["blur_sigma"]), 0.0)
    contrast = uniform(*amounts["contrast"])

    # The inverse of: mirror, crop, then translate . rotate . shear . scale, all about the centre.
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    one, zero = jnp.float32(1), jnp.float32(0)

    def affine(a, b, c, d, e, f):
        return jnp.stack([a, b, c, d, e, f, zero, zero, one]).reshape(3, 3)

    cos, sin = jnp.cos(angle), jnp.sin(angle)
    inverses = (
        affine(one, zero, one * centre_x, zero, one, one * centre_y),
        affine(mirror, zero, zero, zero, one, zero),
        affine(1 - cut_x, zero, window_x * width, zero, 1 - cut_y, window_y * height),
        affine(1 / scale, -slant / scale, zero, zero, 1 / scale, zero),
        affine(cos, sin, zero, -sin, cos, zero),
        affine(one, zero, -shift_x * width - centre_x, zero, one, -shift_y * height - centre_y),
    )
    matrix = inverses[0]
    for inverse in inverses[1:]:
        # TF32 would move pixels of a 224 px frame by a tenth.
        matrix = jnp.matmul(matrix, inverse, precision=jax.lax.Precision.HIGHEST)
    return Factors(matrix[:2], sigma, contrast, noise_key)


def augmented(frames: Array, factors: Factors, amounts: Mapping[str, Any]) -> Array:
    """Returns one clip with `factors` applied to all its frames: float32 [T,H,W,3] in 0..255.

    Noise is drawn anew for every pixel, colour and frame: its strength is what the frames share.
    A noise field shared by the frames would look like a texture that does not move.

    Args:
      frames: uint8 [T,H,W,3].
      factors: of this clip.
      amounts: static; what is off here is not computed.
    """
    num_frames, height, width, channels = frames.shape
    # Planes [T*3,H,W]: all of them are read at the same places, and neighbours along a row stay
    # neighbours in memory (4 times faster on a CPU than gathering pixels of 3 colours).
    planes = frames.transpose(0, 3, 1, 2).reshape(num_frames * channels, height, width)
    geometry = ("flip", "crop", "scale", "translate", "rotate", "shear")
    # Beyond 4 sigma a Gaussian is below 1/2000 of its peak.
    radius = math.ceil(4 * amounts["blur_sigma"]) if amounts["blur"] else 0
    if any(amounts[name] != OFF[name] for name in geometry):
        planes = _resampled(planes, factors.matrix, radius)
    elif radius:
        planes = jnp.pad(planes, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    planes = planes.astype(jnp.float32)
    if radius:
        planes = _blurred(planes, factors.sigma, radius)
    if amounts["contrast"] != OFF["contrast"]:
        planes = jnp.clip(factors.contrast * (planes - 128) + 128, 0, 255)
    if amounts["noise"]:
        noise = jax.random.normal(factors.noise_key, planes.shape, jnp.float32)
        planes = jnp.clip(planes + amounts["noise"] * noise, 0, 255)
    return planes.reshape(num_frames, channels, height, width).transpose(0, 2, 3, 1)


def _resampled(planes: Array, matrix: Array, margin: int) -> Array:
    """Reads planes [P,H,W] bilinearly at `matrix` (x, y, 1); outside, the nearest edge pixel.

    Edge pixels are repeated because black corners would tell the angle, and shift the mean that
    per-clip standardisation subtracts.

    Returns:
      float32 [P, H + 2 margin, W + 2 margin]: the pixels [P,H,W], those at their edges repeated.
      To pad them afterwards takes GPUs and TPUs two more passes over memory.
    """
    height, width = planes.shape[1:]
    columns, rows = (
        jnp.clip(jnp.arange(-margin, size + margin, dtype=jnp.float32), 0, size - 1)
        for size in (width, height)
    )
    x, y = columns[None, :], rows[:, None]
    source_x = jnp.clip(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2], 0, width - 1)
    source_y = jnp.clip(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2], 0, height - 1)
    left = jnp.minimum(jnp.floor(source_x), width - 2)
    top = jnp.minimum(jnp.floor(source_y), height - 2)
    right_share, bottom_share = (source_x - left)[None], (source_y - top)[None]
    corner = top.astype(jnp.int32) * width + left.astype(jnp.int32)
    # "clip" spares the test for indices out of range; none is.
    taken = jnp.take(_squares(planes), corner, axis=1, mode="clip")
    # Compilers for GPUs and TPUs would write the four bytes to memory as four arrays of float32.
    taken = jax.lax.platform_dependent(
        taken, cpu=lambda taken: taken, default=jax.lax.optimization_barrier
    )
    upper_left, upper_right, lower_left, lower_right = (
        (taken >> shift & 255).astype(jnp.float32) for shift in (0, 8, 16, 24)
    )
    upper = upper_left + right_share * (upper_right - upper_left)
    lower = lower_left + right_share * (lower_right - lower_left)
    return upper + bottom_share * (lower - upper)


def _squares(planes: Array) -> Array:
    """Returns every pixel with its right, lower and lower right neighbour in the bytes of a uint32.

    Reading them at once takes a CPU two thirds of the time of reading four bytes at four places.

    Args:
      planes: uint8 [P,H,W].

    Returns:
      uint32 [P, H*W]; neighbours beyond the last row or column mean nothing.
    """
    size, width = planes.shape[1] * planes.shape[2], planes.shape[2]
    flat = planes.reshape(planes.shape[0], size).astype(jnp.uint32)
    padded = jnp.pad(flat, ((0, 0), (0, width + 1)))
    offsets = (0, 1, width, width + 1)
    found = (padded[:, at : at + size] << 8 * index for index, at in enumerate(offsets))
    return functools.reduce(jnp.bitwise_or, found)


def _blurred(planes: Array, sigma: Array, radius: int) -> Array:
    """Returns the inside [P,H,W] of planes [P, H + 2 radius, W + 2 radius] under a Gaussian.

    `sigma` is in pixels.
    """
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    # The floor makes sigma 0 an exact identity: exp(-large) is 0 beside the centre's 1.
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    weights = weights / jnp.sum(weights)
    height, width = (size - 2 * radius for size in planes.shape[1:])
    rows = sum(weights[i] * planes[:, i : i + height] for i in range(2 * radius + 1))
    return sum(weights[i] * rows[:, :, i : i + width] for i in range(2 * radius + 1))
