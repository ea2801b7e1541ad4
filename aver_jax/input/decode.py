"""Stored JPEG face crops to uint8 RGB frames of the model's size."""

from collections.abc import Sequence

import cv2
import numpy as np

from aver_jax.errors import UserError


def resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Resizes a uint8 [H,W,3] frame to [size,size,3]: area averaging down, bilinear up."""
    if frame.shape[:2] == (size, size):
        return frame
    shrinks = size <= min(frame.shape[:2])
    return cv2.resize(
        frame, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def decode_image(jpeg: bytes, name: str, flag: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Returns a stored image as OpenCV reads it: uint8 [H,W,3] BGR, or [H,W] with its gray flag.

    Args:
      jpeg: the encoded image.
      name: of the image, for the error.
      flag: of `cv2.imdecode`.

    Raises:
      UserError: it cannot be decoded.
    """
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag) if jpeg else None
    if image is None:
        raise UserError(
            f"{name} is not a readable JPEG ({len(jpeg)} bytes); the dataset is damaged: prepare "
            "it again"
        )
    return image


def decode_frames(jpegs: Sequence[bytes], size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Returns JPEG images as RGB frames of one size.

    The whole image is decoded and then averaged: libjpeg's reduced decoding saves half of a
    seventh of a millisecond and differs from the average by up to 10 levels.

    Args:
      jpegs: T encoded images.
      size: side of the returned frames, pixels.
      out: uint8 [T,size,size,3] to write into; made anew if None.

    Returns:
      uint8 [T,size,size,3], RGB.

    Raises:
      UserError: an image cannot be decoded.
    """
    if out is None:
        out = np.empty((len(jpegs), size, size, 3), np.uint8)
    for position, jpeg in enumerate(jpegs):
        image = decode_image(jpeg, f"image {position} of {len(jpegs)}")
        # Swapping the channels is also the copy into the batch.
        cv2.cvtColor(resize(image, size), cv2.COLOR_BGR2RGB, dst=out[position])
    return out
