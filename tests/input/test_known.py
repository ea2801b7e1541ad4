"""What a model may take from a record: its own modalities, frames with a known face, by time."""

import numpy as np
import pytest

from aver_jax.input.clips import ClipShape, clip_arrays, clip_window
from aver_jax.input.known import known_part, video_extent, video_stretches
from aver_jax.modality import Modality
from data_prep.frame_times import lasting

BOTH = (Modality.VIDEO, Modality.AUDIO)
TIMES = np.arange(20, dtype=np.float32) / 10


def record(found=None, seconds=2.0, times=TIMES):
    found = np.ones(len(times), bool) if found is None else found
    return {
        "frames": [b"%d" % n for n in range(len(times))],
        "timestamps": times,
        "face_found": found,
        "pcm": bytes(2 * round(16_000 * seconds)),
        "clip_id": "x",
    }


def test_frames_without_a_known_face_are_left_out_and_applying_it_again_changes_nothing():
    found = (np.arange(20) >= 6) & (np.arange(20) // 2 != 6)
    part = known_part(record(found), BOTH)
    again = known_part(part, BOTH)
    for one in (part, again):
        np.testing.assert_array_equal(one["timestamps"], TIMES[found])
        assert one["frames"] == [b"%d" % n for n in np.flatnonzero(found)]
        assert one["lasting"].sum() == pytest.approx(1.2)
    assert video_extent(part) == pytest.approx((0.6, 2.0))
    np.testing.assert_allclose(video_stretches(part), [(0.6, 1.2), (1.4, 2.0)], atol=1e-5)


def test_frames_last_until_the_next_one_also_at_an_uneven_rate():
    times = np.float32([0.0, 0.01, 0.02, 0.5, 0.7])
    np.testing.assert_allclose(lasting(times), [0.01, 0.01, 0.48, 0.2, 0.105], atol=1e-6)
    assert lasting(times[:0]).shape == (0,)
    assert lasting(times[:1]) == pytest.approx(1 / 30)


@pytest.mark.parametrize("modality", Modality)
def test_the_window_of_one_modality_does_not_depend_on_the_other(modality):
    other_sound, other_picture = record(seconds=9.0), record(times=TIMES[:4], seconds=2.0)
    other = other_sound if modality == Modality.VIDEO else other_picture
    windows = [clip_window(known_part(r, (modality,)), 6.0) for r in (record(), other)]
    assert windows[0] == windows[1] == pytest.approx((0.0, 2.0), abs=1e-6)


def test_a_clip_is_used_where_its_face_is_if_that_is_the_smaller_part_of_it():
    late = np.arange(20) >= 12
    assert clip_window(known_part(record(late), BOTH), 6.0) == pytest.approx((1.2, 2.0))
    most = np.arange(20) >= 4
    assert clip_window(known_part(record(most), BOTH), 6.0) == pytest.approx((0.0, 2.0))
    assert clip_window(known_part(record(most), BOTH), 1.0) == pytest.approx((0.5, 1.5))


def test_the_frames_of_a_model_are_spread_over_those_with_a_face(monkeypatch):
    taken = []

    def decode_clip(record, frames, side, out):
        taken.append([int(record["frames"][frame]) for frame in frames])

    monkeypatch.setattr("aver_jax.input.clips.decode_clip", decode_clip)
    shape = ClipShape(num_frames=4, image_size=8, modalities=BOTH)
    late = np.arange(20) >= 12
    batch = clip_arrays([record(), record(late), record(seconds=9.0)], [(0, 1)] * 3, shape)
    assert taken[0] == [2, 7, 12, 17]
    assert taken[1] == [13, 15, 17, 19]
    # The sound goes on: only where the face is.
    assert taken[2] == [2, 7, 12, 17]
    assert batch["audio_length"].tolist() == [32_000, 12_800, 32_000]
