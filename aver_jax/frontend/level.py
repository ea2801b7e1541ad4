"""The level of a clip's sound brought to one value, on the device.

A recording and the same recording turned down are the same speech; without this a model may read
the level of the file (the distance to the microphone, a downmix) as an emotion.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

LEVELS = ("off", "rms")
# Root mean square of speech after normalisation, dB below full scale; speech in ITU-T P.56 tests
# is set to it, which leaves its peaks room.
TARGET = -26.0
# A clip is amplified by no more than this, dB: speech down to -66 dB below full scale reaches the
# target. Noise of one digit, 90 dB below full scale, stays at -50 dB.
LARGEST_GAIN = 40.0
# Samples of a block (20 ms at 16 kHz), and how far below the loudest one a block is a pause, dB.
_BLOCK = 320
_RANGE = 30.0


def checked_level(level: Any) -> str:
    """Returns `config.frontend.level`; ValueError unless it is one of `LEVELS`."""
    if level not in LEVELS:
        raise ValueError(f"frontend.level is {level!r}; expected one of {', '.join(LEVELS)}")
    return level


def active_power(samples: Array, length: Array) -> Array:
    """Returns the mean square of each clip where it sounds, float32 [B]; 0 of silence.

    Blocks of 20 ms count where they are within 30 dB of the clip's loudest one. With all blocks a
    clip with a second of silence before the speech would come out 3 dB louder than without; the
    threshold follows the clip, so that it picks the same blocks at any level. One clap much louder
    than the speech picks itself alone.

    Args:
      samples: float32 [B,S] in -1..1, zeros from `length` on.
      length: int32 [B].
    """
    count = -(-samples.shape[1] // _BLOCK)
    blocks = jnp.pad(samples, ((0, 0), (0, count * _BLOCK - samples.shape[1])))
    energy = jnp.sum(jnp.square(blocks.reshape(-1, count, _BLOCK)), axis=2)
    # The last block of a clip may be a part of one.
    inside = jnp.clip(length[:, None] - jnp.arange(count)[None] * _BLOCK, 0, _BLOCK)
    power = energy / jnp.maximum(inside, 1)
    loudest = jnp.max(power, axis=1, keepdims=True, initial=0.0)
    active = (power > 0) & (power >= loudest * 10 ** (-_RANGE / 10))
    energy, inside = (jnp.sum(jnp.where(active, x, 0), axis=1) for x in (energy, inside))
    return energy / jnp.maximum(inside, 1)


def levelled(samples: Array, length: Array) -> Array:
    """Returns clips scaled to `TARGET`: float32 [B,S], which may go beyond -1..1.

    One gain per clip, at most `LARGEST_GAIN`; silence stays silence. Of a slice it is the slice's
    own level that counts.

    Args:
      samples: float32 [B,S] in -1..1, zeros from `length` on.
      length: int32 [B].
    """
    root = jnp.sqrt(active_power(samples, length))
    # The floor is where the largest gain begins, so that silence divides by no zero.
    gain = 10 ** (TARGET / 20) / jnp.maximum(root, 10 ** ((TARGET - LARGEST_GAIN) / 20))
    return samples * gain[:, None]
