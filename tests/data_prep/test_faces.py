"""Face track and crop: which face, which box, which pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import faces
from data_prep.errors import UnusableClip, UserError

WHOLE = st.integers(-50, 250)


@st.composite
def boxes(draw):
    x, y = draw(WHOLE), draw(WHOLE)
    return np.array([x, y, x + draw(st.integers(1, 90)), y + draw(st.integers(1, 90))], np.float32)


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x, y, x + side, y + side], np.float32)


def scripted(*detections):
    """A detector that gives these boxes, frame by frame."""
    remaining = [np.asarray(a, np.float32).reshape(-1, 4) for a in detections]
    return lambda frame: remaining.pop(0)


BLANK = [np.zeros((100, 200, 3), np.uint8)]


@given(boxes(), boxes())
def test_overlap_is_symmetric_in_range_and_one_for_the_same_box(one, other):
    assert faces.overlap(one, other) == pytest.approx(faces.overlap(other, one))
    assert 0 <= faces.overlap(one, other) <= 1
    assert faces.overlap(one, one) == pytest.approx(1)


def test_overlap_of_half_shifted_squares_is_a_third():
    assert faces.overlap(square(0, 0, 10), square(5, 0, 10)) == pytest.approx(1 / 3)


@given(st.integers(1, 400))
def test_sampled_frames_are_spread_from_first_to_last(frames):
    indices = faces.sample_indices(frames)
    assert indices[0] == 0
    assert indices[-1] == frames - 1
    assert len(indices) == min(frames, 8)
    assert len(indices) < 8 or np.ptp(np.diff(indices)) <= 1


def test_the_face_of_a_long_clip_is_searched_once_a_second():
    counts = [faces.sample_count(np.arange(0, seconds, 0.04)) for seconds in (0.5, 3.0, 6.5, 60.0)]
    assert counts == [8, 8, 8, 61]
    assert faces.sample_count(np.zeros(0)) == 8


def test_the_face_seen_most_often_is_taken_not_the_larger_false_one():
    steady = [square(20 + i, 20, 30) for i in range(6)]
    detections = [[box] for box in steady]
    detections[2] = [square(120, 10, 60), steady[2]]
    track = faces.longest_track([np.stack(d) for d in detections])
    assert list(track) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(np.stack(list(track.values())), np.stack(steady))


def test_of_two_faces_seen_throughout_the_larger_is_taken():
    pair = np.stack([square(0, 0, 30), square(100, 0, 50)])
    track = faces.longest_track([pair, pair[::-1]])
    assert all((box == pair[1]).all() for box in track.values())


def test_no_detection_gives_no_track():
    assert faces.longest_track([np.zeros((0, 4), np.float32)] * 3) == {}


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(10, 80))
def test_a_face_at_rest_keeps_its_box_in_every_frame(x, y, side):
    found = np.tile([[x, y, side]], (4, 1))
    result = faces.interpolate_boxes(np.array([0, 5, 9, 14]), found, 15)
    expected = [x - side / 2, y - side / 2, x + side / 2, y + side / 2]
    np.testing.assert_allclose(result, np.tile(expected, (15, 1)), atol=1e-4)


def test_a_moving_face_is_followed_between_the_sampled_frames():
    positions = faces.sample_indices(71)
    found = np.stack([positions * 2.0, positions * 0.0, np.full(8, 30.0)], axis=1)
    result = faces.interpolate_boxes(positions, found, 71)
    centres = (result[:, 0] + result[:, 2]) / 2
    # Exact inside; the smoothing reaches three half spacings in from the ends.
    np.testing.assert_allclose(centres[16:-16], 2.0 * np.arange(71)[16:-16], atol=1e-3)
    assert (np.diff(centres) > 0).all()


def test_one_detection_of_another_size_does_not_make_the_crop_jump():
    found = np.tile([[50.0, 50.0, 40.0]], (8, 1))
    found[3, 2] = 80
    result = faces.interpolate_boxes(faces.sample_indices(64), found, 64)
    np.testing.assert_allclose(result[:, 2] - result[:, 0], 40, atol=1e-4)


def test_smoothing_takes_a_jitter_away():
    jitter = np.tile([[1.0], [-1.0]], (20, 1))
    smoothed = faces.smooth(jitter, 2.0)
    assert np.abs(smoothed).max() < 0.6
    assert np.abs(smoothed[6:-6]).max() < 0.01


def test_found_is_true_only_between_frames_where_the_face_was_seen():
    seen, none = square(40, 20, 30), np.zeros((0, 4))
    detector = scripted(seen, seen, none, seen, seen, seen, seen, seen)
    track = faces.track_face(BLANK * 15, detector)
    expected = np.ones(15, bool)
    expected[3:6] = False  # frames 0, 2, 4, ... are sampled; 4 is the miss
    np.testing.assert_array_equal(track.found, expected)
    np.testing.assert_allclose(track.boxes, np.tile(seen, (15, 1)), atol=1e-4)


@pytest.mark.parametrize(("hits", "text"), [(0, r"0 of 8 sampled"), (1, r"1 of 8 .* at least 2")])
def test_a_clip_without_a_face_is_unusable(hits, text):
    detections = [square(40, 20, 30)] * hits + [np.zeros((0, 4))] * (8 - hits)
    with pytest.raises(UnusableClip, match=text):
        faces.track_face(BLANK * 30, scripted(*detections))


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
    monkeypatch.setattr(faces, "_installed", lambda package: False)
    with pytest.raises(UserError, match=r"pip install 'aver_jax\[mtcnn\]'"):
        faces.load_detector("mtcnn")
