"""Decoded pictures as people see them: upright, of square pixels, whole frames, in plain colours.

ISO/IEC 14496-12 (display matrix), BT.2100 (PQ, HLG), BT.2087 (BT.2020 to BT.709).
"""

from fractions import Fraction

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type

Size = tuple[int, int]
# Transfer characteristics of ISO/IEC 23091-2.
_PQ, _HLG = 16, 18
_BT2020_TO_BT709 = np.float32(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
# Nits of white paper, and of the brightest light that still differs from lesser ones.
_WHITE, _BRIGHTEST = 203.0, 1000.0
_KNEE = 0.6


class Canvas:
    """Turns the frames of one stream into RGB pictures.

    Args:
      stream: whose pixels may be wider than high.
      size: (height, width) that every picture is brought to; None: each as it is.

    Attributes:
      notes: what was done that is not always done.
    """

    def __init__(self, stream: av.VideoStream, size: Size | None = None) -> None:
        self._aspect = Fraction(stream.sample_aspect_ratio or 1)
        self._size = size
        self._rotation: float | None = None
        self._turn = (False, False, False)
        self.notes: dict[str, None] = {}

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Returns uint8 [H, W, 3]."""
        if frame.color_trc in (_PQ, _HLG):
            kind = "PQ" if frame.color_trc == _PQ else "HLG"
            self.notes[f"HDR ({kind}) brought to standard brightness and colours"] = None
            image = _tone_mapped(frame.to_ndarray(format="rgb48le"), kind)
        else:
            image = frame.to_ndarray(format="rgb24")
        if frame.interlaced_frame:
            self.notes["interlaced: every second line is interpolated"] = None
            image = _one_field(image)
        if self._aspect != 1:
            height, width = image.shape[:2]
            # The shorter side is enlarged: no line is lost.
            wide = self._aspect > 1
            width = round(width * self._aspect) if wide else width
            height = height if wide else round(height / self._aspect)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        if frame.rotation != self._rotation:
            # Read for the first frame alone: one whose side data were read is not freed at once.
            self._rotation, self._turn = frame.rotation, _turn_of(frame)
        swap, mirror_y, mirror_x = self._turn
        if any(self._turn):
            image = image.swapaxes(0, 1) if swap else image
            image = image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
            image = np.ascontiguousarray(image)
        return image if self._size is None else fitted(image, self._size)


def fitted(image: np.ndarray, size: Size) -> np.ndarray:
    """Returns a picture scaled to fit (height, width), black beside or above where it differs."""
    height, width = size
    if image.shape[:2] == size:
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = [min(side, round(n * scale)) for side, n in zip(size, image.shape[:2], strict=True)]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(image, inner[::-1], interpolation=method)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    whole = np.zeros((height, width, 3), np.uint8)
    whole[top : top + inner[0], left : left + inner[1]] = scaled
    return whole


def _turn_of(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Returns what a frame's display matrix asks for: swapped axes, then mirrored y, mirrored x."""
    side = frame.side_data.get(Type.DISPLAYMATRIX)
    if side is None:
        return False, False, False
    # (x, y) of a pixel -> (a x + c y, b x + d y), 16.16 fixed point; y downwards.
    a, b, _, c, d = (int(entry) for entry in np.frombuffer(bytes(side), "<i4")[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def _one_field(image: np.ndarray) -> np.ndarray:
    """Keeps the even lines and interpolates the odd ones, which are of another moment."""
    below = np.concatenate([image[2::2], image[-2:-1] if len(image) % 2 == 0 else image[-1:]])
    whole = image.copy()
    odd = len(image) // 2
    whole[1::2] = (image[0::2][:odd].astype(np.uint16) + below[:odd] + 1) // 2
    return whole


def _tone_mapped(image: np.ndarray, kind: str) -> np.ndarray:
    """Returns uint8 [H, W, 3] of an HDR picture uint16 [H, W, 3] in BT.2020 primaries."""
    light = np.maximum(_light(kind)[image] @ _BT2020_TO_BT709.T, 0)  # 1: white paper
    top = light.max(axis=-1, keepdims=True)
    light = np.clip(light * (_rolled_off(top) / np.maximum(top, 1e-6)), 0, 1)
    # The display of standard pictures, BT.1886.
    return np.uint8(np.round(255 * light ** (1 / 2.4)))


def _rolled_off(light: np.ndarray) -> np.ndarray:
    """Leaves light up to `_KNEE` as it is; what is above it, to `_BRIGHTEST`, ends below 1."""
    reach = (_BRIGHTEST / _WHITE - _KNEE) / (1 - _KNEE)
    # A hyperbola through (0, 0) and (1, 1) whose slope at 0 goes on that of the line below.
    bend = 1 / (reach - 1)
    x = np.maximum(light - _KNEE, 0) / (_BRIGHTEST / _WHITE - _KNEE)
    return np.where(light < _KNEE, light, _KNEE + (1 - _KNEE) * x * (1 + bend) / (x + bend))


def _light(kind: str) -> np.ndarray:
    """Returns light over that of white paper for every 16-bit code: float32 [65536]."""
    code = np.arange(65_536) / 65_535
    if kind == "PQ":
        m1, m2, c1, c2, c3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
        root = code ** (1 / m2)
        nits = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        # The system gamma of a display of 1,000 nits, per channel.
        nits = 1000 * scene**1.2
    return np.float32(nits / _WHITE)
