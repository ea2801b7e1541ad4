"""Mel filters against librosa's."""

import librosa
import numpy as np
import pytest

from aver_jax.frontend.mel import hz_to_mel, mel_edges, mel_filters, mel_to_hz


@pytest.mark.parametrize(("bands", "n_fft"), [(26, 512), (64, 512), (80, 1024), (128, 2048)])
def test_filters_are_librosas(bands, n_fft):
    actual = mel_filters(bands, n_fft, 16_000)
    assert actual.dtype == np.float32
    expected = librosa.filters.mel(sr=16_000, n_fft=n_fft, n_mels=bands)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_edges_are_librosas_and_end_at_half_the_sample_rate():
    edges = mel_edges(64, 16_000)
    np.testing.assert_allclose(edges, librosa.mel_frequencies(66, fmax=8000), atol=1e-9)
    assert edges[0] == 0
    assert edges[-1] == pytest.approx(8000)


def test_mel_and_hz_are_inverse_on_both_sides_of_1_khz():
    hz = np.array([0.0, 60.0, 999.9, 1000.0, 1000.1, 7000.0])
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12)
