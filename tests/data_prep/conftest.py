"""Small media files made on the fly: a drawn face that the detector finds, and a tone."""

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data_prep.media import write_clip

RATE = 16_000


def drawn_face(size: tuple[int, int], centre: tuple[float, float], width: float) -> np.ndarray:
    """uint8 [H, W, 3]: a face of that width in pixels, crude but found by the Haar cascade."""
    image = np.full((*size, 3), (70, 90, 110), np.uint8)
    unit = width / 100

    def ellipse(dx, dy, rx, ry, color, start=0, end=360, thickness=-1):
        middle = (round(centre[0] + dx * unit), round(centre[1] + dy * unit))
        axes = (max(1, round(rx * unit)), max(1, round(ry * unit)))
        line = thickness if thickness < 0 else max(1, round(thickness * unit))
        cv2.ellipse(image, middle, axes, 0, start, end, color, line, cv2.LINE_AA)

    ellipse(0, -12, 52, 66, (60, 40, 30))  # hair
    ellipse(0, 0, 45, 60, (225, 180, 150))  # skin
    for side in (-1, 1):
        ellipse(side * 19, -12, 14, 9, (170, 125, 100))  # socket
        ellipse(side * 19, -10, 10, 5, (245, 245, 245))
        ellipse(side * 19, -10, 4, 4, (40, 30, 30))
        ellipse(side * 19, -22, 14, 5, (60, 40, 30), 190, 350, 4)  # brow
    ellipse(0, 8, 5, 16, (240, 200, 170))  # ridge of the nose
    ellipse(0, 20, 9, 4, (180, 130, 110))
    ellipse(0, 37, 17, 5, (150, 60, 60))  # mouth
    return cv2.GaussianBlur(image, (0, 0), max(0.6, unit * 0.8))


def tone(seconds: float) -> np.ndarray:
    """int16 [S]: 220 Hz at 16 kHz."""
    return (8000 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)


def face_frames(count: int = 12, size: tuple[int, int] = (120, 160), width: float = 64) -> list:
    """A face that drifts to the right, one pixel a frame."""
    middle = size[1] / 2 - count / 2
    return [drawn_face(size, (middle + i, size[0] * 0.55), width) for i in range(count)]


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory) -> Path:
    """A clip of 12 frames at 25 per second, 120 x 160 pixels, with a face and a tone."""
    path = tmp_path_factory.mktemp("clip") / "face.mp4"
    write_clip(path, face_frames(), 25, tone(0.48), RATE)
    return path


@pytest.fixture(scope="session")
def draw_face():
    return drawn_face


@pytest.fixture(scope="session")
def broken_folder(tmp_path_factory, face_clip) -> Path:
    """One good clip under CREMA-D names, and one of every kind that cannot be used."""
    folder = tmp_path_factory.mktemp("broken")
    good = face_clip.read_bytes()
    wall = [np.full((120, 160, 3), 90 + i, np.uint8) for i in range(12)]

    def name(sentence: str, suffix: str = ".mp4") -> Path:
        return folder / f"1001_{sentence}_ANG_XX{suffix}"

    name("IEO").write_bytes(good)
    name("TIE").write_bytes(b"")
    name("IOM").write_bytes(good[: len(good) // 2])
    name("IWW").write_text("this is not a film\n" * 50)
    write_clip(name("TAI"), [], 25, tone(0.5), RATE)
    write_clip(name("MTI"), face_frames(), 25, np.zeros(0, np.int16), RATE)
    write_clip(name("IWL"), wall, 25, tone(0.48), RATE)
    write_clip(name("ITH"), face_frames(1), 25, tone(0.48), RATE)
    (folder / "holiday.mp4").write_bytes(good)
    write_clip(name("DFA"), [drawn_face((2160, 3840), (1900, 1100), 900)] * 3, 25, tone(0.12), RATE)
    name("ITS", ".flv").write_bytes(truncated_flv())
    return folder


def truncated_flv() -> bytes:
    """The first half of a Flash video file, cut within a packet."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flv") as container:
        stream = container.add_stream("flv", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for image in face_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = buffer.getvalue()
    return data[: len(data) // 2]
