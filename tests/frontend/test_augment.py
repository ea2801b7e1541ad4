"""Each transformation against OpenCV or numpy, and what all frames of a clip share."""

import functools

import cv2
import jax
import numpy as np
import pytest

from aver_jax.frontend import augment
from aver_jax.frontend.augment import OFF, Factors, checked_amounts
from aver_jax.frontend.presets import SMALL_CORPUS, THESIS

H, W = 40, 48
IDENTITY = np.eye(3, dtype=np.float32)[:2]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def frames():
    """Smooth pictures, since OpenCV rounds source coordinates to 1/32 pixel."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (3, H, W, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(x, (0, 0), 4) for x in noise])
    low, high = smooth.min(), smooth.max()
    return ((smooth - low) / (high - low) * 255).astype(np.uint8)


def with_only(**amounts):
    return checked_amounts(amounts)


@functools.cache
def compiled_factors(batched):
    def factors(key, amounts):
        return augment.random_factors(key, amounts, H, W)

    return jax.jit(jax.vmap(factors, in_axes=(0, None)) if batched else factors)


def random_factors(key, amounts):
    return compiled_factors(False)(key, amounts)


@functools.cache
def compiled_augmentation(amounts):
    return jax.jit(lambda frames, factors: augment.augmented(frames, factors, dict(amounts)))


def augmented(frames, factors, amounts):
    return np.asarray(compiled_augmentation(tuple(amounts.items()))(frames, factors))


def of_thesis(*names):
    return {name: THESIS[name] for name in names}


def drawn(amounts, count):
    keys = jax.random.split(KEY, count)
    factors = compiled_factors(True)(keys, checked_amounts(amounts))
    return jax.tree.map(np.asarray, factors._replace(noise_key=None))


def affine_parts(matrices):
    """Centred forward maps (source -> output) as (linear [n,2,2], shift [n,2])."""
    full = np.concatenate([matrices, np.tile([[[0, 0, 1.0]]], (len(matrices), 1, 1))], 1)
    centre = np.array([[1, 0, (W - 1) / 2], [0, 1, (H - 1) / 2], [0, 0, 1]])
    forward = np.linalg.inv(centre) @ np.linalg.inv(full) @ centre
    return forward[:, :2, :2], forward[:, :2, 2]


def test_everything_off_returns_the_frames(frames):
    amounts = checked_amounts({})
    factors = random_factors(KEY, amounts)
    np.testing.assert_allclose(factors.matrix, IDENTITY, atol=1e-6)
    assert np.array_equal(augmented(frames, factors, amounts), frames)


def test_identity_factors_leave_the_frames_even_where_all_is_computed(frames):
    amounts = checked_amounts(THESIS | {"noise": 0.0})
    factors = Factors(IDENTITY, np.float32(0), np.float32(1), KEY)
    np.testing.assert_allclose(augmented(frames, factors, amounts), frames, atol=1e-4)


def test_resampling_is_opencvs_warp_with_repeated_edges(frames):
    amounts = with_only(flip=1, crop=0.1, scale=(0.9, 1.1), translate=0.1, rotate=25, shear=8)
    for seed in range(3):
        factors = random_factors(jax.random.key(seed), amounts)
        actual = augmented(frames, factors, amounts)
        matrix = np.asarray(factors.matrix, np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for picture, source in zip(actual, frames.astype(np.float32), strict=True):
            expected = cv2.warpAffine(
                source, matrix, (W, H), flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
            # 1/32 px of rounding times the steepest slope of the pictures.
            slope = max(np.abs(np.diff(source, axis=a)).max() for a in (0, 1))
            assert np.abs(picture - expected).max() <= slope / 32 + 0.1


def test_resampling_is_exact_bilinear_interpolation(frames):
    amounts = with_only(rotate=25, translate=0.1)
    factors = random_factors(jax.random.key(5), amounts)
    y, x = np.mgrid[:H, :W].astype(np.float64)
    m = np.asarray(factors.matrix, np.float64)
    sx = np.clip(m[0, 0] * x + m[0, 1] * y + m[0, 2], 0, W - 1)
    sy = np.clip(m[1, 0] * x + m[1, 1] * y + m[1, 2], 0, H - 1)
    x0, y0 = np.floor(sx).astype(int), np.floor(sy).astype(int)
    x1, y1 = np.minimum(x0 + 1, W - 1), np.minimum(y0 + 1, H - 1)
    fx, fy = (sx - x0)[..., None], (sy - y0)[..., None]
    f = frames.astype(np.float64)
    upper = f[:, y0, x0] * (1 - fx) + f[:, y0, x1] * fx
    lower = f[:, y1, x0] * (1 - fx) + f[:, y1, x1] * fx
    expected = upper * (1 - fy) + lower * fy
    np.testing.assert_allclose(augmented(frames, factors, amounts), expected, atol=5e-3)


def test_flip_alone_is_the_mirror_image(frames):
    amounts = with_only(flip=1)
    mirrored = augmented(frames, random_factors(KEY, amounts), amounts)
    np.testing.assert_allclose(mirrored, frames[:, :, ::-1], atol=1e-3)


def test_blur_is_opencvs_gaussian_with_repeated_edges(frames):
    amounts = with_only(blur=1, blur_sigma=0.5)
    rough = np.random.default_rng(1).integers(0, 256, frames.shape, dtype=np.uint8)
    for sigma in (0.2, 0.5):
        factors = Factors(IDENTITY, np.float32(sigma), np.float32(1), KEY)
        actual = augmented(rough, factors, amounts)
        for picture, source in zip(actual, rough.astype(np.float32), strict=True):
            expected = cv2.GaussianBlur(source, (5, 5), sigma, borderType=cv2.BORDER_REPLICATE)
            np.testing.assert_allclose(picture, expected, atol=2e-3)


def test_contrast_turns_about_128_and_stays_in_range(frames):
    amounts = with_only(contrast=(0.75, 1.5))
    factors = Factors(IDENTITY, np.float32(0), np.float32(1.4), KEY)
    expected = np.clip(1.4 * (frames - 128.0) + 128, 0, 255)
    np.testing.assert_allclose(augmented(frames, factors, amounts), expected, atol=1e-3)


def test_noise_has_its_strength_and_differs_between_frames():
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    amounts = with_only(noise=25)
    factors = random_factors(KEY, amounts)
    noise = augmented(grey, factors, amounts) - 128
    assert abs(noise.mean()) < 0.5
    assert noise.std() == pytest.approx(25, rel=0.02)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.03
    assert augmented(np.zeros_like(grey), factors, amounts).min() == 0


def test_all_frames_of_a_clip_share_their_factors(frames):
    amounts = checked_amounts(THESIS | {"noise": 0.0})
    still = np.repeat(frames[:1], 4, axis=0)
    moved = augmented(still, random_factors(KEY, amounts), amounts)
    assert not np.allclose(moved[0], frames[0], atol=5)
    for picture in moved[1:]:
        np.testing.assert_array_equal(picture, moved[0])


def test_drawn_factors_fill_the_ranges_of_the_thesis():
    linear, shift = affine_parts(drawn(of_thesis("flip", "crop"), 400).matrix)
    assert 0.42 < np.mean(linear[:, 0, 0] < 0) < 0.58
    kept = 1 / np.abs(linear[:, [0, 1], [0, 1]])
    assert 0.9 - 1e-5 <= kept.min() < 0.905
    assert 0.995 < kept.max() <= 1 + 1e-5
    # The kept window never leaves the frame: its corners come from inside.
    edges = (np.abs(shift) * kept + kept * [W / 2, H / 2]) / [W / 2, H / 2]
    assert edges.max() <= 1 + 1e-5

    linear, shift = affine_parts(drawn(of_thesis("rotate", "scale"), 400).matrix)
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert -25 <= angles.min() < -24
    assert 24 < angles.max() <= 25
    scales = np.sqrt(np.linalg.det(linear))
    assert 0.9 - 1e-5 <= scales.min() < 0.91
    assert 1.09 < scales.max() <= 1.1 + 1e-5
    np.testing.assert_allclose(shift, 0, atol=1e-4)

    linear, shift = affine_parts(drawn(of_thesis("translate", "shear"), 400).matrix)
    shares = np.abs(shift) / [W, H]
    assert (shares.max(0) <= 0.1 + 1e-5).all()
    assert (shares.max(0) > 0.097).all()
    slants = np.degrees(np.arctan(linear[:, 0, 1]))
    assert -8 - 1e-4 <= slants.min() < -7.8
    assert 7.8 < slants.max() <= 8 + 1e-4

    assert THESIS["noise"] == 25
    factors = drawn(THESIS, 400)
    assert 0.42 < np.mean(factors.sigma == 0) < 0.58
    assert 0.48 < factors.sigma.max() <= 0.5
    assert 0.75 <= factors.contrast.min() < 0.76
    assert 1.49 < factors.contrast.max() <= 1.5


def test_turning_one_transformation_off_leaves_the_others_as_they_were():
    some, fewer = drawn(THESIS, 3), drawn(THESIS | {"flip": 0.0, "crop": 0.0}, 3)
    np.testing.assert_array_equal(some.contrast, fewer.contrast)
    np.testing.assert_array_equal(some.sigma, fewer.sigma)


def test_unknown_and_impossible_amounts_are_named():
    with pytest.raises(ValueError, match=r"unknown fields jitter; known: flip, crop"):
        checked_amounts({"jitter": 1})
    with pytest.raises(ValueError, match=r"contrast is \(1.5, 0.75\)"):
        checked_amounts({"contrast": (1.5, 0.75)})
    with pytest.raises(ValueError, match=r"contrast is 0.2; expected \(low, high\)"):
        checked_amounts({"contrast": 0.2})
    with pytest.raises(ValueError, match=r"flip is 2; expected 0 \(off\) to 1"):
        checked_amounts({"flip": 2})
    assert checked_amounts({}) == OFF
    assert checked_amounts(SMALL_CORPUS) == OFF | SMALL_CORPUS
