"""Augmentation of sound on the device: level, noise, and masks over its spectrogram.

The thesis changes sound in time alone (4.5.2, 5.3.3: random slices, which the input pipeline cuts).
The masks are those of SpecAugment (Park et al. 2019), without its warping.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from aver_jax.frontend.fields import check_known
from aver_jax.frontend.spectrogram import SAMPLE_RATE, Settings

OFF = {
    "gain": 0.0,
    "noise": 0.0,
    "snr": (10.0, 40.0),
    "time_masks": 0,
    "time_width": 0.0,
    "frequency_masks": 0,
    "frequency_width": 0.0,
}
"""Every amount, with the value at which its transformation is off (and is not computed).

gain: the level, which `frontend.level` has set before, changes by U(-gain, gain) dB; noise:
probability of white noise, at a distance of U(snr) dB below the clip's own power; time_masks,
frequency_masks: how many stretches of time and of frequency are set to 0, the mean after
standardisation; each stretch is uniformly wide, from nothing to time_width seconds (and a fifth of
the clip) or to frequency_width, a share of the bands.
"""

# A short clip would otherwise be masked from end to end.
_LARGEST_SHARE_OF_TIME = 0.2


class Factors(NamedTuple):
    """The random factors of one clip."""

    gain: Array  # float32 []: of the samples
    noise: Array  # float32 []: amplitude relative to the clip's root mean square; 0: none
    noise_key: Array  # typed key []
    times: Array  # int32 [time_masks, 2]: first masked frame, and the one after the last
    bands: Array  # int32 [frequency_masks, 2]


def checked_amounts(sound: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all amounts of `OFF`, taken from `sound` where it has them.

    Raises:
      ValueError: for an unknown name, or a value out of its range.
    """
    check_known("frontend.sound", sound, OFF)
    amounts = {name: sound.get(name, off) for name, off in OFF.items()}
    pair = amounts["snr"]
    if not (
        isinstance(pair, (tuple, list)) and len(pair) == 2 and -20 <= pair[0] <= pair[1] <= 100
    ):
        raise ValueError(
            f"frontend.sound.snr is {pair}; expected (low, high) in dB with "
            "-20 <= low <= high <= 100"
        )
    amounts["snr"] = (float(pair[0]), float(pair[1]))
    limits = {"gain": 60, "noise": 1, "time_masks": 100, "frequency_masks": 100}
    limits |= {"time_width": 10, "frequency_width": 0.5}
    for name, largest in limits.items():
        value, kind = amounts[name], int if isinstance(OFF[name], int) else float
        if not isinstance(value, int | float) or kind(value) != value or not 0 <= value <= largest:
            raise ValueError(
                f"frontend.sound.{name} is {value!r}; expected 0 (off) to {largest}"
                + (", a whole number" if kind is int else "")
            )
        amounts[name] = kind(value)
    return amounts


def random_factors(
    key: Array, amounts: Mapping[str, Any], settings: Settings, frames: Array
) -> Factors:
    """Returns factors drawn for one clip of `frames` (int32 []) STFT frames.

    Each factor has its own draws, so that turning one off leaves the others as they were.

    Args:
      key: typed key [].
      amounts: as `checked_amounts` gives them.
      settings: of the spectrogram.
      frames: int32 [], the clip's own; masks lie within them.
    """
    level_key, noise_key, time_key, band_key = jax.random.split(key, 4)
    gain, noisy, snr = jax.random.uniform(level_key, (3,), jnp.float32)
    gain = _ratio((2 * gain - 1) * amounts["gain"])
    low, high = amounts["snr"]
    noise = jnp.where(noisy < amounts["noise"], _ratio(-(low + (high - low) * snr)), 0.0)
    widest = jnp.minimum(
        amounts["time_width"] * SAMPLE_RATE / settings.hop, _LARGEST_SHARE_OF_TIME * frames
    )
    times = _stretches(time_key, amounts["time_masks"], frames, widest)
    bands = jnp.int32(settings.num_bands)
    widest = amounts["frequency_width"] * bands
    return Factors(
        gain,
        noise,
        noise_key,
        times,
        _stretches(band_key, amounts["frequency_masks"], bands, widest),
    )


def changed_samples(
    samples: Array, length: Array, factors: Factors, amounts: Mapping[str, Any]
) -> Array:
    """Applies gain and noise to one clip: float32 [S], zeros from `length` (int32 []) on.

    Noise is measured by the clip's own root mean square, so silence stays silent.
    """
    if amounts["noise"]:
        power = jnp.sum(jnp.square(samples)) / jnp.maximum(length, 1)
        noise = jax.random.normal(factors.noise_key, samples.shape, jnp.float32)
        noise = jnp.where(jnp.arange(samples.shape[0]) < length, noise, 0.0)
        samples = samples + factors.noise * jnp.sqrt(power) * noise
    return samples * factors.gain if amounts["gain"] else samples


def masked(values: Array, factors: Factors) -> Array:
    """Returns one spectrogram [frames,F] with its stretches of time and of frequency set to 0."""
    for axis, stretches in enumerate((factors.times, factors.bands)):
        if len(stretches):
            place = jnp.arange(values.shape[axis])[:, None]
            hit = (stretches[None, :, 0] <= place) & (place < stretches[None, :, 1])
            hit = jnp.expand_dims(hit.any(1), 1 - axis)
            values = jnp.where(hit, 0.0, values)
    return values


def _ratio(decibels: Array) -> Array:
    return jnp.exp(decibels * (math.log(10) / 20))


def _stretches(key: Array, count: int, size: Array, widest: Array) -> Array:
    """Draws [first, end) within 0..size, int32 [count, 2]; the width is uniform in 0..widest."""
    draws = jax.random.uniform(key, (count, 2), jnp.float32)
    width = jnp.floor(draws[:, 0] * (jnp.floor(widest) + 1))
    first = jnp.floor(draws[:, 1] * (size - width + 1))
    return jnp.stack([first, first + width], axis=1).astype(jnp.int32)
