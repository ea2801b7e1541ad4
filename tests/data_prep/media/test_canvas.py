"""Pictures as people see them: square pixels, upright, one size, whole frames, plain colours."""

from fractions import Fraction

import av
import numpy as np
import pytest

from data_prep.media import decode
from data_prep.media.canvas import Canvas, fitted

RED, GREEN, BLUE = (230, 40, 40), (40, 200, 60), (40, 60, 220)


def corners(height: int = 48, width: int = 64) -> np.ndarray:
    """Four quarters: red, green above; blue, white below."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, 230
    return image


def quarters(image: np.ndarray) -> list[int]:
    """Which of red, green, blue, white (0 to 3) the quarters of a picture show."""
    height, width = image.shape[:2]
    known = np.array([RED, GREEN, BLUE, (230,) * 3], int)
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [int(np.abs(known - image[place].astype(int)).sum(1).argmin()) for place in places]


def write(path, images, codec="mpeg4", edit=lambda stream: None, rate=25, pix_fmt="yuv420p"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.bit_rate = 4_000_000
        edit(stream)
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def pictures_of(path, **options):
    return decode(path, audio=False, **options)


@pytest.mark.parametrize(
    ("aspect", "size"), [((2, 1), (48, 128)), ((64, 45), (48, 91)), ((1, 2), (96, 64))]
)
def test_pixels_become_square_and_no_line_is_lost(tmp_path, aspect, size):
    def edit(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)

    write(tmp_path / "a.mkv", [corners()] * 3, edit=edit)
    frame = pictures_of(tmp_path / "a.mkv").frames[1]
    assert frame.shape[:2] == size
    assert quarters(frame) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), [0, 1, 2, 3]),
        ((-1, 0, 0, 1), [1, 0, 3, 2]),  # mirrored left to right: no turn
        ((1, 0, 0, -1), [2, 3, 0, 1]),  # top to bottom
        ((-1, 0, 0, -1), [3, 2, 1, 0]),
        ((0, 1, -1, 0), [2, 0, 3, 1]),  # a quarter to the right
        ((0, -1, 1, 0), [1, 3, 0, 2]),
        ((0, 1, 1, 0), [0, 2, 1, 3]),  # both: the diagonal stays
    ],
)
def test_a_display_matrix_turns_and_mirrors(matrix, expected):
    class Side:
        def get(self, kind):
            a, b, c, d = (65_536 * entry for entry in matrix)
            return np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], "<i4").tobytes()

    class Frame:
        color_trc, interlaced_frame, rotation, side_data = 1, False, 5, Side()

        def to_ndarray(self, format):
            return corners()

    class Stream:
        sample_aspect_ratio = None

    assert quarters(Canvas(Stream())(Frame())) == expected


@pytest.mark.parametrize("held_bytes", [1 << 30, 0])
def test_pictures_that_change_their_size_become_one_size(tmp_path, held_bytes):
    buffers = []
    for number, (height, width) in enumerate([(24, 32), (48, 64), (64, 48)]):
        path = tmp_path / f"{number}.ts"
        write(path, [corners(height, width)] * 10, "mpeg2video")
        buffers.append(path.read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(buffers))
    clip = pictures_of(tmp_path / "joined.ts", held_bytes=held_bytes)
    assert len(clip.frames) > 20
    assert {frame.shape for frame in clip.frames} == {(48, 64, 3)}
    assert quarters(clip.frames[2]) == [0, 1, 2, 3]
    # Upright in a wide canvas: black beside it, not stretched.
    last = clip.frames[-1]
    assert last[:, :10].max() < 40
    assert quarters(last[:, 14:50]) == [0, 1, 2, 3]
    (note,) = clip.notes
    assert note == "pictures of 32x24, 64x48, 48x64: brought to 64x48"
    assert (np.diff(clip.timestamps) > 0).all()


def test_a_picture_that_fits_is_left_as_it_is():
    image = corners()
    assert fitted(image, (48, 64)) is image
    assert fitted(image, (96, 200)).shape == (96, 200, 3)


def test_lines_of_two_moments_are_not_mixed():
    # A bar that has moved by 16 pixels between the two fields.
    image = np.zeros((48, 64, 3), np.uint8)
    image[0::2, 10:20], image[1::2, 26:36] = 200, 200

    class Frame:
        color_trc, interlaced_frame, rotation, side_data = 1, True, 0, {}

        def to_ndarray(self, format):
            return image

    class Stream:
        sample_aspect_ratio = None

    canvas = Canvas(Stream())
    shown = canvas(Frame())
    assert shown[:, 10:20].min() == 200
    assert shown[:, 26:36].max() == 0
    assert list(canvas.notes) == ["interlaced: every second line is interpolated"]


@pytest.mark.parametrize(("transfer", "kind"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_brought_to_standard_brightness(transfer, kind):
    class Stream:
        sample_aspect_ratio = None

    def shown(nits: float) -> int:
        light = nits / 10_000
        if kind == "PQ":
            m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
            code = ((c1 + c2 * light**m1) / (1 + c3 * light**m1)) ** m2
        else:
            scene = (nits / 1000) ** (1 / 1.2)
            a, b, c = 0.17883277, 0.28466892, 0.55991073
            code = np.sqrt(3 * scene) if scene <= 1 / 12 else a * np.log(12 * scene - b) + c

        class Frame:
            color_trc, interlaced_frame, rotation, side_data = transfer, False, 0, {}

            def to_ndarray(self, format):
                assert format == "rgb48le"
                return np.full((4, 4, 3), round(65_535 * code), np.uint16)

        canvas = Canvas(Stream())
        image = canvas(Frame())
        assert list(canvas.notes) == [f"HDR ({kind}) brought to standard brightness and colours"]
        return int(image[0, 0, 1])

    # Greys up to 0.6 of white paper (203 nits) are those of a standard picture, BT.1886.
    for nits in (5, 20, 50, 100):
        assert shown(nits) == pytest.approx(255 * (nits / 203) ** (1 / 2.4), abs=2)
    values = [shown(nits) for nits in (100, 203, 400, 700, 1000)]
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(255, abs=1)
