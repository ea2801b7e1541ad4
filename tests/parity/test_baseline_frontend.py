"""The PyTorch front end of the benchmark against aver_jax's: spectrograms, frames, augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from aver_jax.frontend import augment as ours
from aver_jax.frontend import spectrogram
from aver_jax.frontend.normalize import normalized as normalized_by_aver_jax
from aver_jax.frontend.presets import THESIS
from tools.baseline import augment
from tools.baseline.frontend import normalized, packed_segments, segment_counts, segments

pytestmark = pytest.mark.parity

SETTINGS = (
    spectrogram.Settings(mean=0.05, deviation=0.16),
    spectrogram.Settings(n_fft=128, window=100, hop=50, scale="db", segment=30, overlap=0.3),
)


def assert_close(found, expected, relative):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.abs(expected).max()


@pytest.mark.parametrize("settings", SETTINGS, ids=["thesis", "db"])
@pytest.mark.parametrize("samples", [33_000, 4_000])
def test_segments_are_those_of_aver_jax(settings, samples):
    rng = np.random.default_rng(0)
    length = np.array([samples, samples // 3, 0, 17], np.int32)
    audio = rng.normal(0, 3000, (4, samples)).astype(np.int16)
    fields = vars(settings)
    found = segments(fields, torch.tensor(audio), torch.tensor(length, dtype=torch.int64))

    values = spectrogram.frames_of(settings, spectrogram.samples_of(audio, length), length)
    expected = spectrogram.segments_of(settings, values, samples)
    # In dB the last digits of a magnitude near 0 are large.
    tolerance = 1e-5 if settings.scale == "log1p" else 1e-4
    assert_close(found, expected, tolerance)
    counts = segment_counts(fields, length)
    assert counts.tolist() == spectrogram.num_segments(settings, length).tolist()

    index = torch.tensor([3 * expected.shape[1], 0, expected.shape[1] - 1])
    packed = packed_segments(
        fields, torch.tensor(audio), torch.tensor(length, dtype=torch.int64), index
    )
    flat = np.asarray(expected).reshape(-1, 1, *expected.shape[2:])
    assert_close(packed, flat[index.numpy()], tolerance)


@pytest.mark.parametrize("normalization", ["per_clip", "imagenet", "timesformer"])
def test_frames_are_standardised_as_in_aver_jax(normalization):
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 20, 24, 3), np.uint8)
    frames[1] = 128  # of one colour: its deviation is taken to be one level
    found = normalized(torch.tensor(frames), normalization)
    assert_close(found, normalized_by_aver_jax(jnp.asarray(frames), normalization), 1e-5)


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (3, 2, 6, 8, 3), np.uint8).repeat(6, 2).repeat(6, 3)
    return coarse + rng.integers(0, 40, coarse.shape, np.uint8)


def drawn(amounts, clips):
    """Factors of aver_jax for the clips, and the uniform draws behind them [13, clips]."""
    keys = jax.random.split(jax.random.key(0), len(clips))
    height, width = clips.shape[2:4]
    factors = jax.vmap(lambda key: ours.random_factors(key, amounts, height, width))(keys)
    draws = [jax.random.uniform(jax.random.split(key)[0], (13,)) for key in keys]
    return factors, np.array(draws).T


@pytest.mark.parametrize("noise", [0.0, THESIS["noise"]])
def test_clips_with_given_factors_are_those_of_aver_jax(clips, noise, monkeypatch):
    amounts = ours.checked_amounts(THESIS | {"noise": noise})
    factors, _ = drawn(amounts, clips)
    expected = jax.vmap(lambda x, f: ours.augmented(x, f, amounts))(clips, factors)
    given = augment.Factors(
        *(torch.tensor(np.asarray(getattr(factors, name))) for name in augment.Factors._fields)
    )

    def the_same_noise(planes):
        of_clips = jax.vmap(lambda key: jax.random.normal(key, planes.shape[1:]))
        return torch.tensor(np.asarray(of_clips(factors.noise_key)))

    monkeypatch.setattr(torch, "randn_like", the_same_noise)
    found = augment.augmented(torch.tensor(clips), given, amounts)
    # A pixel is read at places that are off by some 1e-5 of it.
    assert_close(found, expected, 2e-5)


def test_factors_of_the_same_draws_are_those_of_aver_jax(clips, monkeypatch):
    amounts = ours.checked_amounts(THESIS)
    expected, draws = drawn(amounts, clips)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.tensor(draws))
    found = augment.random_factors(amounts, len(clips), *clips.shape[2:4], torch.device("cpu"))
    for name in augment.Factors._fields:
        assert_close(getattr(found, name), getattr(expected, name), 1e-5)
