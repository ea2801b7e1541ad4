"""The voice: a glottal source through formants, coloured by each emotion's prosody."""

from dataclasses import dataclass, fields

import numpy as np

from data_prep.synthetic.identity import Identity
from data_prep.synthetic.sound.speech import STEP, Articulation

SAMPLE_RATE = 16_000
_WINDOW, _HOP = 512, 128
_BINS = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)


@dataclass(frozen=True)
class Prosody:
    """How a voice departs from its habit. `pitch`: semitones; `range`: times the excursion;
    `energy`: dB; `rate`: times the speed; `tilt`: dB at 4 kHz; `breath`: added noise; `jitter`:
    irregular periods (semitones); `tremor`: 7 Hz wobble (semitones); `slope`: semitones gained
    over the sentence; `rise`: semitones at its end; `attack`: sharpness of the accents."""

    pitch: float = 0.0
    range: float = 1.0
    energy: float = 0.0
    rate: float = 1.0
    tilt: float = 0.0
    breath: float = 0.0
    jitter: float = 0.15
    tremor: float = 0.0
    slope: float = -2.0
    rise: float = 0.0
    attack: float = 0.5


# Directions after Scherer (2003, table 1) and Juslin & Laukka (2003, table 7): hot anger and joy
# are high, wide, loud, bright; fear is high, fast, unsteady; sadness low, narrow, slow, dark;
# disgust low and slow.
PROSODY = {
    "NEU": Prosody(),
    "ANG": Prosody(4.5, 1.7, 7.0, 1.12, 7.0, 0.0, 0.3, 0.0, -2.5, -1.0, 1.0),
    "DIS": Prosody(-2.5, 1.25, 0.5, 0.84, -1.0, 0.06, 0.9, 0.0, -4.5, -2.0, 0.7),
    "FEA": Prosody(7.0, 0.8, 1.5, 1.2, 1.0, 0.16, 0.5, 0.8, 0.5, 1.0, 0.6),
    "HAP": Prosody(5.5, 1.9, 4.0, 1.06, 3.0, 0.02, 0.15, 0.0, -0.5, 2.5, 0.6),
    "SAD": Prosody(-1.5, 0.4, -6.5, 0.82, -9.0, 0.12, 0.15, 0.15, -1.2, -0.3, 0.15),
    "SUR": Prosody(6.0, 2.0, 3.0, 1.0, 2.0, 0.05, 0.15, 0.0, 3.0, 6.0, 0.5),
    "CAL": Prosody(-1.5, 0.6, -3.0, 0.9, -4.0, 0.05, 0.08, 0.0, -2.0, -0.5, 0.2),
}


def mixed_prosody(emotions: dict[str, float], habit: Prosody, rng: np.random.Generator) -> Prosody:
    """Mixes the prosody of `emotions` (name -> strength 0..1), as one speaker departs from habit.

    Departures are measured from neutral speech and added to the speaker's own.
    """
    plain = PROSODY["NEU"]
    values = {}
    for field in fields(Prosody):
        rest = getattr(plain, field.name)
        performed = rng.uniform(0.85, 1.15)
        gain = sum(
            strength * (getattr(PROSODY[emotion], field.name) - rest)
            for emotion, strength in emotions.items()
        )
        values[field.name] = getattr(habit, field.name) + performed * gain
    return Prosody(**values)


def _blend(track_rest: float, track_full: float, share: np.ndarray) -> np.ndarray:
    return track_rest + share * (track_full - track_rest)


def _pitch(
    who: Identity, said: Articulation, habit: Prosody, shown: Prosody, share: np.ndarray, rng
) -> np.ndarray:
    """Returns the fundamental frequency in Hz per control frame."""
    times = np.arange(len(share)) * STEP
    wobble = np.convolve(rng.normal(0, 1, len(share)), np.ones(5) / 5**0.5, mode="same")
    slow = np.interp(times, np.arange(0, times[-1] + 0.3, 0.3),
                     rng.normal(0, 1, len(np.arange(0, times[-1] + 0.3, 0.3))))  # fmt: skip
    accent = said.accent - said.accent.mean()
    semitones = (
        _blend(habit.pitch, shown.pitch, share)
        + _blend(habit.range, shown.range, share) * (5.0 * accent + 0.9 * slow)
        + _blend(habit.slope, shown.slope, share) * (said.spoken - 0.5)
        + _blend(habit.rise, shown.rise, share) * np.clip((said.spoken - 0.75) * 4, 0, 1)
        + _blend(habit.jitter, shown.jitter, share) * wobble
        + _blend(habit.tremor, shown.tremor, share) * np.sin(2 * np.pi * 7.0 * times)
    )
    return np.clip(who.pitch * 2 ** (semitones / 12), 55, 520)


def _resonances(formants: np.ndarray) -> np.ndarray:
    """Returns four resonances in cascade, complex [K, bins]; `formants` [K, 4] Hz."""
    s = 1j * _BINS
    response = np.ones((len(formants), len(_BINS)), np.complex64)
    for k, width in enumerate((70.0, 100.0, 140.0, 220.0)):
        pole = (width / 2 - 1j * formants[:, k : k + 1]).astype(np.complex64)
        response *= (np.abs(pole) ** 2 / ((s + pole) * (s + pole.conj()))).astype(np.complex64)
    return response


def _filtered(signal: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Returns the overlap-add of Hann windows, window k multiplied by `gains[k]` in frequency."""
    count = len(gains)
    padded = np.pad(signal, (_WINDOW // 2, _WINDOW + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:count]
    shaped = np.fft.irfft(np.fft.rfft(frames * np.hanning(_WINDOW + 1)[:-1]) * gains, axis=-1)
    out = np.zeros(count * _HOP + _WINDOW)
    for part in range(_WINDOW // _HOP):  # windows a full length apart do not overlap
        rows = shaped[part :: _WINDOW // _HOP]
        at = part * _HOP
        out[at : at + rows.size] += rows.ravel()
    return out[_WINDOW // 2 : _WINDOW // 2 + len(signal)] * 0.5


def synthesize(
    who: Identity,
    said: Articulation,
    habit: Prosody,
    shown: Prosody,
    share: np.ndarray,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Returns the voice of one clip, as it is before it is recorded (`recording.recorded`).

    Args:
      who: the speaker.
      said: what is said, and when.
      habit: the speaker's prosody at rest.
      shown: prosody at the apex.
      share: how much of it shows, 0..1 per control frame, float64 [K].
      samples: length of the sound at `SAMPLE_RATE`.
      rng: breath and jitter.

    Returns:
      float64 [samples], about 0.1 of full scale.
    """
    at = np.arange(samples) / SAMPLE_RATE / STEP - 0.5
    grid = np.arange(len(share))
    f0 = np.interp(at, grid, _pitch(who, said, habit, shown, share, rng))
    phase = np.cumsum(f0 / SAMPLE_RATE) % 1.0
    # KLGLOTT88: the derivative of the glottal flow, open for 60% of a period.
    opened = phase / 0.6
    pulse = np.where(opened < 1, opened * (2 - 3 * opened), 0.0)
    loud = 10 ** (_blend(habit.energy, shown.energy, share) / 20)
    accented = said.voice * (
        1 + _blend(habit.attack, shown.attack, share) * 1.2 * (said.accent - 0.4)
    )
    breath = np.clip(who.breath + _blend(habit.breath, shown.breath, share), 0.0, 0.6)
    source = np.interp(at, grid, accented * loud * (1 - 0.5 * breath)) * pulse
    hiss = rng.normal(0, 1, samples)
    source += hiss * np.interp(at, grid, 0.2 * breath * said.voice * loud)

    centers = np.clip(np.arange(samples // _HOP + 1) * _HOP / SAMPLE_RATE / STEP, 0, len(share) - 1)
    pick = centers.astype(int)
    formants = said.formants[pick] * who.tract
    formants = np.concatenate([formants, np.full((len(pick), 1), 3500.0 * who.tract)], axis=1)
    octaves = np.log2(np.maximum(_BINS, 125.0) / 4000.0) / 5 + 1  # 0 at 125 Hz, 1 at 4 kHz
    tilt = (_blend(habit.tilt, shown.tilt, share[pick]) - 1.0)[:, None] * octaves
    voiced = _filtered(source, _resonances(formants) * 10 ** (tilt / 20))
    band = np.exp(-(((_BINS - said.noise_center[pick][:, None]) / 1300.0) ** 2))
    band *= (said.noise * loud)[pick][:, None]
    sound = voiced + 0.22 * _filtered(hiss, band)
    return 0.12 * sound
