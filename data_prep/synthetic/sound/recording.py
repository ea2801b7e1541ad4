"""How a voice was recorded: microphone, room, background noise and level, drawn per clip."""

import numpy as np

from data_prep.synthetic.sound.voice import SAMPLE_RATE
from data_prep.synthetic.variation import Variation

_QUIET = 0.0006  # amplitude of the noise of the quietest room


def recorded(sound: np.ndarray, variation: Variation, rng: np.random.Generator) -> np.ndarray:
    """Returns the sound as a microphone in some room gives it.

    Args:
      sound: float64 [S], about 0.1 of full scale.
      variation: `gain`, `noise` and `room` are read.
      rng: draws of this clip.

    Returns:
      int16 [S].
    """
    sound = _in_room(sound, variation.room, rng)
    floor = _QUIET * 10 ** (variation.noise * rng.uniform(0, 15) / 20)
    sound = sound + floor * _background(len(sound), variation.noise, rng)
    gain = np.clip(rng.normal(), -1.8, 1.8) * 11.0 * variation.gain
    # A plain corpus keeps the small differences between takes.
    gain += rng.uniform(-1.0, 1.0)
    return np.rint(np.tanh(sound * 10 ** (gain / 20)) * 32767).astype(np.int16)


def _in_room(sound: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Adds an exponentially falling reverberation and a smooth colour to `sound` [S]."""
    decay = rng.uniform(0.12, 0.45)  # seconds to -60 dB
    wet = amount * rng.uniform(0.0, 0.3)
    tail = rng.normal(0, 1, round(0.5 * SAMPLE_RATE))
    tail *= 10 ** (-3 * np.arange(len(tail)) / SAMPLE_RATE / decay)
    tail[: round(0.004 * SAMPLE_RATE)] = 0.0
    tail *= wet / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = 1 << (len(sound) + len(tail)).bit_length()
    bins = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    # The colour: a curve over octaves, and the ends of the microphone's range.
    marks = np.array([60, 125, 250, 500, 1000, 2000, 4000, 8000])
    curve = np.interp(np.log2(np.maximum(bins, 60)), np.log2(marks),
                      amount * rng.normal(0, 2.1, len(marks)))  # fmt: skip
    curve += amount * rng.normal(0, 1.2) * np.log2(np.maximum(bins, 125) / 1000)
    response = np.fft.rfft(tail, size) * 10 ** (curve / 20)
    return np.fft.irfft(np.fft.rfft(sound, size) * response, size)[: len(sound)]


def _background(samples: int, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Returns noise of deviation 1, between white and falling by 6 dB an octave; float64 [S]."""
    white = rng.normal(0, 1, samples)
    fall = min(1.0, amount) * rng.uniform(0, 1)
    bins = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 60.0)
    noise = np.fft.irfft(np.fft.rfft(white) * (bins / 60.0) ** -fall, samples)
    return noise / noise.std()
