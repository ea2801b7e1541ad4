"""Spectrograms against librosa, and what a clip's segments do not depend on."""

import functools

import jax
import librosa
import numpy as np
import pytest

from aver_jax.frontend import spectrogram
from aver_jax.frontend.spectrogram import Settings, whole_spectrogram

RATE = spectrogram.SAMPLE_RATE


@pytest.fixture(scope="module")
def chirp():
    """int16, 0.5 s from 100 Hz to 7 kHz, ending abruptly, with a little noise."""
    seconds = np.arange(RATE // 2 + 37) / RATE
    tone = np.sin(2 * np.pi * (100 * seconds + 7000 * seconds**2))
    noise = np.random.default_rng(0).normal(0, 0.01, len(seconds))
    return (12_000 * (tone + noise)).astype(np.int16)


@functools.cache
def compiled(settings):
    return jax.jit(lambda audio, length: whole_spectrogram(settings, audio, length))


def of_clip(settings, pcm, samples=16_000):
    """The frames of one clip, from a buffer of that many samples: [F, frames]."""
    audio = np.zeros((1, samples), np.int16)
    audio[0, : len(pcm)] = pcm
    whole = np.asarray(compiled(settings)(audio, np.array([len(pcm)], np.int32)))[0]
    assert not whole[:, 1 + len(pcm) // settings.hop :].any()
    return whole[:, : 1 + len(pcm) // settings.hop]


def of_librosa(settings, pcm):
    """|STFT| of the clip's own samples, in float64 throughout."""
    samples = pcm.astype(np.float64) / 32_768
    return np.abs(
        librosa.stft(
            samples,
            n_fft=settings.n_fft,
            win_length=settings.window,
            hop_length=settings.hop,
            center=True,
            pad_mode="constant",
        )
    )


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(n_fft=512, window=400, hop=160), Settings(hop=100)]
)
def test_log1p_is_librosas(chirp, settings):
    expected = np.log1p(of_librosa(settings, chirp))
    actual = of_clip(settings, chirp)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=1e-5)
