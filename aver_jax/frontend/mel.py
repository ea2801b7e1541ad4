"""Mel filters in Slaney's form: what `librosa.filters.mel` returns by default."""

import numpy as np

# Slaney's Auditory Toolbox: linear up to 1 kHz (15 mel), logarithmic above, 27 mel to 6.4 kHz.
_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Returns frequencies in Hz (>= 0) as mel, float64 of the same shape."""
    hz = np.asarray(hz, np.float64)
    # The floor only keeps the logarithm of the branch that is not taken finite.
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mel: np.ndarray | float) -> np.ndarray:
    """Returns mel (>= 0) as frequencies in Hz, float64 of the same shape."""
    mel = np.asarray(mel, np.float64)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, above)


def mel_edges(bands: int, sample_rate: int) -> np.ndarray:
    """Returns Hz, float64 [bands + 2]: band b rises from edge b to centre b + 1, falls to b + 2.

    They are evenly spaced in mel from 0 to half the sample rate.
    """
    return mel_to_hz(np.linspace(0.0, hz_to_mel(sample_rate / 2), bands + 2))


def mel_filters(bands: int, n_fft: int, sample_rate: int) -> np.ndarray:
    """Returns triangular filters of equal area, float32 [bands, n_fft // 2 + 1].

    A filter narrower than the distance of two frequencies may hold none of them: it is zero
    throughout.
    """
    edges = mel_edges(bands, sample_rate)
    frequencies = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
