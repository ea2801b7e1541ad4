"""Face track and crop: which face, which box, which pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import faces
from data_prep.errors import UserError
from data_prep.frame_times import nearest_frames

WHOLE = st.integers(-50, 250)


@st.composite
def boxes(draw):
    x, y = draw(WHOLE), draw(WHOLE)
    return np.array([x, y, x + draw(st.integers(1, 90)), y + draw(st.integers(1, 90))], np.float32)


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x, y, x + side, y + side], np.float32)


BLANK = [np.zeros((100, 200, 3), np.uint8)]


@given(boxes(), boxes())
def test_overlap_is_symmetric_in_range_and_one_for_the_same_box(one, other):
    assert faces.overlap(one, other) == pytest.approx(faces.overlap(other, one))
    assert 0 <= faces.overlap(one, other) <= 1
    assert faces.overlap(one, one) == pytest.approx(1)


def test_overlap_of_half_shifted_squares_is_a_third():
    assert faces.overlap(square(0, 0, 10), square(5, 0, 10)) == pytest.approx(1 / 3)


def still(boxes):
    """A detector that finds the same boxes in every frame."""
    return lambda frame: np.asarray(boxes, np.float32).reshape(-1, 4)


TIMES = np.arange(30) / 25


def test_faces_are_searched_at_even_times_not_at_even_frame_numbers():
    # Half a second of 100 frames a second, then 5 a second.
    times = np.concatenate([np.arange(50) / 100, 0.5 + np.arange(9) / 5])
    looked = times[nearest_frames(times, faces.look_times(times))]
    np.testing.assert_allclose(looked, np.linspace(0, times[-1], 8), atol=0.1)
    assert len(faces.look_times(np.arange(0, 6.5, 0.04))) == 8
    assert len(faces.look_times(np.arange(0, 60, 0.04))) == 61
    assert len(faces.look_times(np.zeros(0))) == 0


def test_the_face_seen_longest_is_taken_not_the_larger_false_one():
    moments = iter(range(99))

    def detector(frame):
        found = [square(20, 20, 30)]
        return np.stack([square(120, 10, 60), *found] if next(moments) == 2 else found)

    first, *others = faces.follow_faces(BLANK * 30, TIMES, detector)
    assert others == []
    np.testing.assert_allclose(first.boxes, np.tile(square(20, 20, 30), (30, 1)), atol=1e-3)
    assert first.found.all()


def test_of_two_faces_seen_throughout_the_larger_comes_first_in_any_order_of_detection():
    pair = np.stack([square(0, 0, 30), square(100, 0, 50)])
    for boxes_ in (pair, pair[::-1]):
        first, second = faces.follow_faces(BLANK * 30, TIMES, still(boxes_))
        np.testing.assert_allclose(first.boxes[7], pair[1], atol=1e-3)
        np.testing.assert_allclose(second.boxes[7], pair[0], atol=1e-3)


def test_two_boxes_around_one_head_are_one_face():
    # As a cascade gave them for a rendered clip, in some of the looks.
    pair = np.stack([square(41, 43, 87), square(72, 47, 78)])
    moments = iter(range(99))

    def detector(frame):
        return pair if next(moments) in (0, 1, 2, 6) else pair[:1]

    tall = [np.zeros((200, 200, 3), np.uint8)] * 30
    (track,) = faces.follow_faces(tall, TIMES, detector)
    np.testing.assert_allclose(track.boxes, np.tile(pair[0], (30, 1)), atol=1e-2)
    beside = np.stack([pair[0], square(41 + 60, 43, 87)])
    assert len(faces.follow_faces(tall, TIMES, still(beside))) == 2


def test_the_longest_or_the_largest_face_is_preferred():
    def detector(frame):
        near = [square(100, 20, 60)] if frame[0, 0, 0] == 0 else []
        return np.stack([square(10, 20, 30), *near])

    frames = BLANK * 20 + [np.full((100, 200, 3), 1, np.uint8)] * 10
    for prefer, x in (("longest", 10), ("largest", 100)):
        first, _ = faces.follow_faces(frames, TIMES, detector, prefer)
        assert first.boxes[3, 0] == pytest.approx(x, abs=0.5)
    assert not first.found[21:].any()
    assert first.found[:18].all()


def test_no_detection_gives_no_face():
    assert faces.follow_faces(BLANK * 30, TIMES, still([])) == []


def test_a_face_is_known_only_where_it_was_seen():
    seen = square(40, 20, 30)

    def detector(frame):
        return np.stack([seen]) if frame[0, 0, 0] == 0 else np.zeros((0, 4), np.float32)

    dark = np.full((100, 200, 3), 200, np.uint8)
    (track,) = faces.follow_faces(BLANK * 15 + [dark] * 15, TIMES, detector)
    np.testing.assert_array_equal(track.found, np.arange(30) < 15)
    np.testing.assert_allclose(track.boxes, np.tile(seen, (30, 1)), atol=1e-3)
    assert track.seconds == pytest.approx(0.6)


def painted(position: float, hue: tuple[int, int, int], width: int = 900) -> np.ndarray:
    """A frame of grey with a patch of one colour, `detected` finds it."""
    frame = np.full((100, width, 3), 90, np.uint8)
    x = round(position)
    frame[20:80, x : x + 40] = hue
    frame[20:80:3, x : x + 40 : 4] //= 2
    return frame


def detected(frame: np.ndarray) -> np.ndarray:
    """Boxes [1, 4] of 40 pixels around the patch; none in a grey frame."""
    columns = np.flatnonzero((np.ptp(frame.astype(int), axis=2) > 20).any(axis=0))
    if not len(columns):
        return np.zeros((0, 4), np.float32)
    return square(columns[0], 30, 40)[None]


SKIN, OTHER = (210, 150, 120), (90, 160, 220)


def errors_of(track, path) -> float:
    """The largest distance of a known box from the path of the patch, in sides of the box."""
    centres = (track.boxes[:, 0] + track.boxes[:, 2]) / 2
    return float(np.abs(centres - (np.asarray(path) + 20))[track.found].max()) / 40


@pytest.mark.parametrize("speed", [100, 400, 800])
def test_a_face_in_motion_is_followed(speed):
    times = np.arange(30) / 30
    path = speed * times
    (track,) = faces.follow_faces([painted(x, SKIN) for x in path], times, detected)
    assert track.found.all()
    assert track.moves
    assert errors_of(track, path) < 0.1


def test_a_face_is_followed_by_time_in_a_recording_of_uneven_rate():
    times = np.concatenate([np.arange(50) / 100, 0.5 + np.arange(9) / 5])
    path = np.interp(times, [0.5, 0.9], [0, 800])
    (track,) = faces.follow_faces([painted(x, SKIN) for x in path], times, detected)
    assert track.found.mean() > 0.9
    assert errors_of(track, path) < 0.25


def test_one_face_is_followed_over_a_cut_and_a_gap():
    times = np.arange(60) / 30
    path = np.where(times < 1, 50.0, 700.0)
    frames = [painted(x, SKIN) for x in path]
    (track,) = faces.follow_faces(frames, times, detected)
    assert track.found.all()
    assert errors_of(track, path) < 0.1
    grey = np.full((100, 900, 3), 90, np.uint8)
    frames[20:40] = [grey] * 20
    (track,) = faces.follow_faces(frames, times, detected)
    np.testing.assert_array_equal(track.found, (np.arange(60) < 20) | (np.arange(60) >= 40))


def test_two_people_one_after_the_other_at_one_place_are_two():
    times = np.arange(60) / 30
    frames = [painted(100, SKIN if t < 1.2 else OTHER) for t in times]
    first, second = faces.follow_faces(frames, times, detected)
    assert (first.seconds, second.seconds) == pytest.approx((1.2, 0.8), abs=0.05)
    assert not (first.found & second.found).any()


def test_a_face_that_moves_is_preferred_to_a_photograph_on_the_wall():
    times = np.arange(30) / 30

    def frame(x):
        image = painted(x, SKIN)
        image[20:80, 800:840] = OTHER
        return image

    def both(image):
        return np.stack([square(800, 30, 40), detected(image[:, :700])[0]])

    path = 300 + 60 * np.sin(6 * times)
    first, photograph = faces.follow_faces([frame(x) for x in path], times, both)
    assert (first.moves, photograph.moves) == (True, False)
    assert errors_of(first, path) < 0.2


def test_one_detection_of_another_size_does_not_make_the_crop_jump():
    moments = iter(range(99))

    def detector(frame):
        side = 50 if next(moments) == 3 else 40
        return square(70 - side / 2, 50 - side / 2, side)[None]

    first = faces.follow_faces(BLANK * 30, TIMES, detector)[0]
    np.testing.assert_allclose(first.boxes[:, 2] - first.boxes[:, 0], 40, atol=1e-3)


@given(boxes(), st.integers(4, 40))
def test_any_box_gives_a_crop_of_the_asked_size(box, size):
    frame = np.full((100, 150, 3), 77, np.uint8)
    result = faces.crop(frame, box, 1.3, size)
    assert result.shape == (size, size, 3)
    assert (result == 77).all()


def test_crop_is_the_square_around_the_box_with_its_margin():
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[30:70, 20:60] = 255  # the box 24..56, 34..66 times 1.25
    box = np.array([24, 34, 56, 66], np.float32)
    assert (faces.crop(frame, box, 1.25, 40) == 255).all()
    assert (faces.crop(frame, box, 1.3, 42)[0] == 0).all()


def test_crop_beyond_the_frame_repeats_its_edge():
    frame = np.zeros((50, 50, 3), np.uint8)
    frame[:, :5] = 200
    result = faces.crop(frame, square(-10, 10, 20), 1.0, 20)
    assert (result[:, :15] == 200).all()
    assert (result[:, 15:] == 0).all()


def test_shrinking_averages_areas():
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[::2] = 100
    np.testing.assert_allclose(faces.crop(frame, square(0, 0, 40), 1.0, 20), 50)


def test_the_haar_cascade_finds_small_and_huge_faces_where_they_are(draw_face):
    haar = faces.load_detector("haar")
    for size, centre, width in [((120, 160), (80, 66), 64), ((2160, 3840), (1900, 1100), 900)]:
        (box,) = haar(draw_face(size, centre, width))
        found = (box[:2] + box[2:]) / 2
        assert np.abs(found - centre).max() < 0.15 * width
        assert 0.9 * width < box[2] - box[0] < 1.5 * width


def test_unknown_or_missing_detectors_are_one_clear_line(monkeypatch):
    with pytest.raises(UserError, match="unknown face detector 'x', expected one of haar, mtcnn"):
        faces.load_detector("x")
    monkeypatch.setattr(faces.detector, "_installed", lambda package: False)
    with pytest.raises(UserError, match=r"pip install 'aver_jax\[mtcnn\]'"):
        faces.load_detector("mtcnn")
