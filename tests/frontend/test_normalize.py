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


def test_per_clip_change_is_what_per_clip_moves_about_its_mean_over_time(frames):
    x = frames.astype(np.float64)
    scaled = (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)
    expected = 4.0 * (scaled - scaled.mean(1, keepdims=True))
    actual = normalized(frames, "per_clip_change")
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_per_clip_change_of_a_still_clip_is_zero(frames):
    still = np.repeat(frames[:, :1], 4, axis=1)
    assert np.abs(normalized(still, "per_clip_change")).max() < 1e-5


def test_per_clip_change_does_not_see_the_picture_behind_the_changes(frames):
    rng = np.random.default_rng(1)
    moves = rng.normal(0, 5, (3, 4, 24, 20, 3)).astype(np.float32)
    plain = np.asarray(normalized(moves + 128, "per_clip_change"), np.float64)
    for picture in (frames[:, :1], rng.uniform(0, 255, (3, 1, 24, 20, 3)), np.float32(10)):
        other = np.asarray(normalized(moves + picture, "per_clip_change"), np.float64)
        # One scale per clip and colour, that of the clip's contrast.
        scale = (plain * other).sum((1, 2, 3)) / (plain * plain).sum((1, 2, 3))
        assert (scale > 0).all()
        error = np.abs(other / scale[:, None, None, None] - plain).max()
        assert error < 1e-3 * np.abs(plain).max()


def test_unknown_normalization_lists_the_known_ones(frames):
    with pytest.raises(
        ValueError, match=r"'minmax'.*per_clip, per_clip_change, imagenet, timesformer, half"
    ):
        normalized(frames, "minmax")
