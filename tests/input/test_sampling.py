"""Where a clip is looked at: by time, inside the slice, evenly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aver_jax.errors import UserError
from aver_jax.input.sampling import (
    centre_window,
    frame_indices,
    frames_of_many,
    time_slice,
    view_slices,
)

clip_times = st.lists(st.floats(0.01, 0.2), min_size=1, max_size=40).map(np.cumsum)


def test_frames_lie_at_the_centres_of_equal_parts():
    timestamps = np.arange(60) / 30
    np.testing.assert_array_equal(frame_indices(timestamps, 0.0, 2.0, 4), [7, 22, 37, 52])


def test_frames_are_even_in_time_where_frames_were_lost():
    timestamps = np.concatenate([np.arange(30) / 30, [1.5, 1.9]])
    chosen = timestamps[frame_indices(timestamps, 0.0, 2.0, 4)]
    np.testing.assert_allclose(chosen, [0.25, 0.75, 1.5, 1.9], atol=0.02)


@given(clip_times, st.floats(0, 0.9), st.floats(0.05, 1), st.integers(1, 20))
def test_chosen_frames_are_the_nearest_in_time(timestamps, start, length, count):
    seconds = timestamps[-1] + 0.04
    first, last = start * seconds, (start + length) * seconds
    chosen = frame_indices(timestamps, first, last, count)
    centres = first + (np.arange(count) + 0.5) / count * (last - first)
    distance = np.abs(timestamps[:, None] - centres)
    np.testing.assert_allclose(distance[chosen, np.arange(count)], distance.min(0), atol=1e-9)
    assert (np.diff(chosen) >= 0).all()


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1))
def test_a_time_slice_keeps_its_share_inside_the_clip(seed, min_share):
    start, stop = time_slice(np.random.default_rng(seed), min_share)
    assert 0 <= start < stop <= 1
    assert stop - start >= min_share - 1e-12


def test_time_slices_are_uniform_in_length_and_place():
    rng = np.random.default_rng(0)
    slices = np.array([time_slice(rng, 0.5) for _ in range(20_000)])
    length = slices[:, 1] - slices[:, 0]
    place = slices[:, 0] / (1 - length)
    for values, low, high in ((length, 0.5, 1.0), (place, 0.0, 1.0)):
        quantiles = np.quantile(values, [0.1, 0.5, 0.9])
        np.testing.assert_allclose(
            quantiles, low + (high - low) * np.array([0.1, 0.5, 0.9]), atol=0.02
        )


@pytest.mark.parametrize("min_share", [0.0, -0.5, 1.5])
def test_an_impossible_slice_is_a_clear_error(min_share):
    with pytest.raises(UserError, match="min_slice"):
        time_slice(np.random.default_rng(0), min_share)


def test_only_the_middle_of_a_long_clip_is_used():
    assert centre_window(0.0, 10.0, 6.0) == (2.0, 8.0)
    assert centre_window(3.0, 10.0, 6.0) == (3.5, 9.5)
    assert centre_window(0.0, 5.0, 6.0) == (0.0, 5.0)


def test_one_view_is_the_whole_clip_and_several_reach_both_ends():
    np.testing.assert_array_equal(view_slices(1), [[0, 1]])
    np.testing.assert_allclose(view_slices(3), [[0, 0.75], [0.125, 0.875], [0.25, 1]])
    with pytest.raises(UserError, match="views"):
        view_slices(0)


def test_the_frames_of_many_clips_are_those_of_each():
    rng = np.random.default_rng(0)
    # Steps of 1/8 s, some of 0: centres meet midpoints exactly, and frames repeat.
    times = np.cumsum(rng.integers(0, 3, (50, 7)), axis=1).astype(np.float32) / 8
    start, stop = np.sort(rng.integers(0, 17, (50, 2)) / 8, axis=1).T
    stop = stop + 0.125
    found = frames_of_many(times, start, stop, 4)
    each = [frame_indices(*clip, 4) for clip in zip(times, start, stop, strict=True)]
    np.testing.assert_array_equal(found, each)
    one = frames_of_many(times[:, :1], start, stop, 4)
    np.testing.assert_array_equal(one, np.zeros((50, 4)))
