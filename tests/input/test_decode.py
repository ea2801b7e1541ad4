"""Stored images come back in the right colours and size."""

import cv2
import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.input import decode_frames, resize


def smooth_frame(side: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


def jpeg(rgb: np.ndarray) -> bytes:
    image = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def test_decoded_frames_are_rgb():
    frame = smooth_frame(64)
    decoded = decode_frames([jpeg(frame)], 64)[0]
    assert np.abs(decoded.astype(int) - frame).mean() < 3


@pytest.mark.parametrize("size", [16, 48, 64, 80])
def test_decoding_and_resizing_raw_crops_agree(size):
    stored = jpeg(smooth_frame(64))
    raw = decode_frames([stored], 64)[0]
    np.testing.assert_array_equal(decode_frames([stored], size)[0], resize(raw, size))


def test_shrinking_averages_areas():
    frame = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    expected = frame.reshape(2, 2, 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(resize(frame, 2), expected, atol=0.5)


def test_frames_are_written_where_they_are_wanted():
    out = np.zeros((2, 32, 32, 3), np.uint8)
    assert decode_frames([jpeg(smooth_frame(32, s)) for s in (1, 2)], 32, out) is out
    assert out[0].any()
    assert out[1].any()


@pytest.mark.parametrize("damaged", [b"", b"not a jpeg"])
def test_a_damaged_image_is_a_clear_error(damaged):
    with pytest.raises(UserError, match="prepare it again"):
        decode_frames([jpeg(smooth_frame(32)), damaged], 32)
