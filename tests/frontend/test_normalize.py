"""Normalisation against its definition in numpy float64."""

import numpy as np
import pytest

from aver_jax.frontend.normalize import normalized


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    # Different light per clip and colour, so that a statistic over the wrong axes shows.
    levels = rng.uniform(40, 200, (3, 1, 1, 1, 3))
    return np.clip(rng.normal(levels, 30, (3, 4, 24, 20, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("timesformer", 0.45, 0.225),
        ("half", 0.5, 0.5),
    ],
)
def test_fixed_statistics_are_the_published_ones(frames, name, mean, deviation):
    expected = (frames / 255.0 - mean) / deviation
    actual = normalized(frames, name)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_per_clip_standardisation_is_per_clip_and_colour_over_all_frames(frames):
    x = frames.astype(np.float64)
    expected = (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(normalized(frames, "per_clip"), expected, atol=2e-5)
    np.testing.assert_allclose(
        normalized(frames, "per_clip")[1:2], normalized(frames[1:2], "per_clip"), atol=1e-6
    )


def test_per_clip_standardisation_of_one_colour_stays_small():
    frames = np.full((1, 2, 8, 8, 3), 200, np.uint8)
    frames[0, 0, 0, 0] += 1
    assert np.abs(normalized(frames, "per_clip")).max() <= 1


def test_unknown_normalization_lists_the_known_ones(frames):
    with pytest.raises(ValueError, match=r"'minmax'.*per_clip, imagenet, timesformer, half"):
        normalized(frames, "minmax")
