"""Overlays: the heat lies where the model looked, the picture stays visible at any frame size."""

import types

import cv2
import numpy as np
import pytest

from aver_jax.report import contact_sheet, overlay
from aver_jax.report.overlay_video import overlay_frames

CLASSES = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]
PROBABILITIES = [0.6, 0.2, 0.05, 0.05, 0.05, 0.05]


def _picture(frame, region, heat, **options):
    """The part of the drawn frame that shows the video."""
    drawn = overlay.draw_frame(frame, region, heat, "ANG", CLASSES, PROBABILITIES, **options)
    scale = max(1.0, overlay.SHORT_SIDE / min(frame.shape[:2]))
    return drawn[:, : round(frame.shape[1] * scale)], scale


def test_region_is_the_square_of_the_crop():
    """The same rectangle that the preparation cuts out."""
    from data_prep.faces import crop

    frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    box = np.array([60, 40, 80, 64])
    x0, y0, x1, y1 = np.rint(overlay.square_region(box, 1.5)).astype(int)
    assert (x1 - x0, y1 - y0) == (36, 36)
    np.testing.assert_array_equal(frame[y0:y1, x0:x1], crop(frame, box, 1.5, 36))


def test_heat_is_linear_between_explained_frames_and_held_outside():
    times, maps = [0.5, 1.0, 2.0], np.array([0.0, 1.0, 0.5])[:, None, None] * np.ones((3, 2, 2))
    at = [overlay.heat_at(t, times, maps)[0, 0] for t in (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 9.0)]
    np.testing.assert_allclose(at, [0, 0, 0.5, 1, 0.75, 0.5, 0.5])


def test_heat_of_one_frame_and_of_repeated_times_is_defined():
    maps = np.stack([np.zeros((2, 2)), np.ones((2, 2))])
    np.testing.assert_array_equal(overlay.heat_at(3.0, [1.0], maps[:1]), maps[0])
    assert np.isfinite(overlay.heat_at(1.0, [1.0, 1.0], maps)).all()


def test_colours_rise_in_lightness_with_relevance():
    ramp = overlay.heat_colors(np.linspace(0, 1, 256))[None]
    lightness = cv2.cvtColor(ramp, cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert np.diff(lightness).min() >= -1
    assert lightness[-1] - lightness[0] > 150


def test_the_face_stays_visible_under_the_highest_relevance():
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[:, 20:] = 200
    plain = overlay.heat_overlay(frame, np.zeros((4, 4)))
    hot = overlay.heat_overlay(frame, np.ones((4, 4)))
    np.testing.assert_allclose(plain, frame, atol=1)  # grey stays what it is without relevance
    assert np.abs(hot.astype(int) - frame).mean() > 60
    assert hot[0, 30].astype(int).sum() - hot[0, 10].astype(int).sum() > 90


@pytest.mark.parametrize("size", [(160, 160), (480, 640)])
@pytest.mark.parametrize("patch", [(0, 0), (1, 3), (3, 2)])
def test_heat_lies_exactly_over_its_patch(size, patch):
    height, width = size
    frame = np.full((height, width, 3), 128, np.uint8)
    region = np.array([0.25 * width, 0.25 * height, 0.25 * width + 80, 0.25 * height + 80])
    heat = np.zeros((4, 4))
    heat[patch] = 1
    hot, scale = _picture(frame, region, heat)
    cold, _ = _picture(frame, region, np.zeros((4, 4)))
    change = np.abs(hot.astype(int) - cold).sum(-1).astype(float)
    rows, columns = np.mgrid[: change.shape[0], : change.shape[1]] + 0.5
    centre = np.array([(rows * change).sum(), (columns * change).sum()]) / change.sum() / scale
    expected = region[[1, 0]] + (np.array(patch) + 0.5) * 20
    # At the border a patch is smoothed inwards only.
    np.testing.assert_allclose(centre, expected, atol=2 if 0 < patch[0] < 3 else 4)


def test_a_region_beyond_the_frame_is_cut_and_not_squeezed():
    frame = np.full((480, 480, 3), 128, np.uint8)
    heat = np.zeros((4, 4))
    heat[1, 1] = 1
    inside, _ = _picture(frame, [-100, -100, 300, 300], heat)
    cold, _ = _picture(frame, [-100, -100, 300, 300], np.zeros((4, 4)))
    change = np.abs(inside.astype(int) - cold).sum(-1)
    peak = np.unravel_index(change.argmax(), change.shape)
    np.testing.assert_allclose(peak, (50, 50), atol=4)
    untouched, _ = _picture(frame, [600, 600, 700, 700], heat)
    assert untouched.std() == 0


@pytest.mark.parametrize("size", [(160, 160), (361, 483), (3840, 2160), (2160, 3840), (40, 900)])
def test_frames_of_any_size_become_readable_and_encodable(size):
    frame = np.zeros((*size, 3), np.uint8)
    drawn = overlay.draw_frame(frame, [0, 0, 30, 30], np.eye(4), "ANG", CLASSES, PROBABILITIES)
    height, width = drawn.shape[:2]
    assert height % 2 == width % 2 == 0
    assert overlay.LEAST_SIDE <= height <= overlay.LONG_SIDE
    assert width <= overlay.LONG_SIDE + 500


def test_the_panel_shows_label_probabilities_and_moment():
    frame = np.zeros((480, 640, 3), np.uint8)

    def panel(label="ANG", probabilities=PROBABILITIES, **options):
        drawn = overlay.draw_frame(
            frame, [0, 0, 9, 9], np.eye(4), label, CLASSES, probabilities, **options
        )
        return drawn[:, 640:]

    moments = ([0.0, 1.0, 2.0], [0.2, 1.0, 0.5])
    plain = panel()
    np.testing.assert_array_equal(plain, panel())
    assert (plain != panel(label="SAD")).any()
    assert (plain != panel(truth="SAD")).any()
    assert (plain != panel(moments=moments)).any()
    assert (plain != panel(branch_predictions=[("video alone", "SAD", 0.5)])).any()
    # The moving marker leaves the cached panel as it was.
    early, late = (panel(moments=moments, time=t) for t in (0.1, 1.9))
    assert (early != late).any()
    np.testing.assert_array_equal(early, panel(moments=moments, time=0.1))

    def bar(probabilities):
        """Length of the accent-coloured bar in pixels."""
        accent = np.abs(panel(probabilities=probabilities).astype(int) - overlay._ACCENT).sum(-1)
        return (accent < 12).sum(1).max()

    assert bar([0.8, 0.2, 0, 0, 0, 0]) == pytest.approx(2 * bar([0.4, 0.6, 0, 0, 0, 0]), abs=2)


def test_scales_say_what_they_are_and_the_window_is_marked():
    frame = np.zeros((480, 640, 3), np.uint8)
    moments = ([2.0, 3.0, 4.0], [0.2, 1.0, 0.5])

    def panel(heat=None, **options):
        drawn = overlay.draw_frame(
            frame, [0, 0, 9, 9], heat, "ANG", CLASSES, PROBABILITIES, moments=moments, **options
        )
        return drawn[:, 640:]

    whole = panel(np.eye(4), window=(2, 4, 2, 4))
    np.testing.assert_array_equal(whole, panel(np.eye(4)))
    cut = panel(np.eye(4), window=(0, 10, 1.5, 4.5))
    assert (whole != cut).any()
    # A frame that was not seen has the same panel.
    np.testing.assert_array_equal(cut, panel(None, scale=True, window=(0, 10, 1.5, 4.5)))
    nothing = panel(np.zeros((4, 4)), flat="no positive relevance")
    ramp = overlay.heat_colors(np.linspace(0, 1, 256))[-1].astype(int)
    assert (np.abs(whole.astype(int) - ramp).sum(-1) < 9)[430:460].any()
    assert not (np.abs(nothing.astype(int) - ramp).sum(-1) < 9)[430:460].any()


def test_frames_that_the_model_did_not_see_have_no_heat(clip):
    frames = list(overlay_frames(clip, CLASSES, 1.3))
    heat = [np.ptp(frame[:480, :480].astype(int), axis=-1).max() > 60 for frame in frames]
    times = clip.record["timestamps"]
    np.testing.assert_array_equal(heat, (times >= 0.2) & (times <= 0.6))


@pytest.fixture
def clip(tmp_path):
    """A prediction of a grey film of one second, seen from .2 to .6 s."""
    from data_prep.media import decode, write_clip

    path = tmp_path / "film.mp4"
    write_clip(path, [np.full((96, 96, 3), 128, np.uint8)] * 10, 10, np.zeros(0, np.int16), 16_000)
    times = decode(path, audio=False).timestamps
    return types.SimpleNamespace(
        path=path,
        streams=(),
        target=int(np.argmax(PROBABILITIES)),
        record={"face_box": np.tile([20, 20, 70, 70], (10, 1)), "timestamps": times},
        probabilities=np.array(PROBABILITIES),
        branches={},
        window=(0.2, 0.6),
        maps=np.ones((2, 4, 4)) * np.array([0.9, 1.0])[:, None, None],
        map_times=np.array([0.3, 0.5]),
        maps_peak=2.0,
    )


def test_many_classes_and_long_names_stay_on_the_panel():
    frame = np.zeros((200, 200, 3), np.uint8)
    names = [f"a very long name of a class, number {i}" for i in range(30)]
    drawn = overlay.draw_frame(frame, None, None, names[3], names, np.full(30, 1 / 30))
    assert (drawn[:, -8:] == overlay.BACKGROUND).all()


def test_filmstrip_shows_each_frame_above_its_heat():
    frames = np.full((3, 20, 20, 3), 90, np.uint8)
    frames[1] = 200
    maps = np.zeros((3, 4, 4))
    maps[2] = 1
    strip = contact_sheet.filmstrip(frames, maps, times=[0, 0.5, 1], side=40)
    top, bottom = strip[:40], strip[46:86]
    np.testing.assert_array_equal(top[20, [20, 66, 112]], [[90] * 3, [200] * 3, [90] * 3])
    np.testing.assert_allclose(bottom[20, [20, 66]], [[90] * 3, [200] * 3], atol=1)
    assert np.ptp(bottom[20, 112].astype(int)) > 50  # coloured
    assert strip.shape[:2] == (86 + 6, 132)


def test_contact_sheet_holds_every_picture_and_caption():
    pictures = [np.full((10, 10, 3), value, np.uint8) for value in (50, 100, 150)]
    grid = contact_sheet.contact_sheet(pictures, ["one", "two", "three"], columns=2, side=30)
    assert grid.shape == (2 * 35 + 6, 66, 3)
    assert [grid[15, 15, 0], grid[15, 51, 0], grid[56, 15, 0]] == [50, 100, 150]
    assert grid[30:35, :30].max() > 60
