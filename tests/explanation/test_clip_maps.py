"""Maps of a dataset's clips are those of `explain`; controls know the clip's row alone."""

import jax
import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.explanation import clip_maps
from aver_jax.explanation.clip_maps import control_maps, maps_of, on_grid, time_shuffled
from aver_jax.frontend import evaluation_inputs
from aver_jax.relevance import explain


def test_maps_are_those_of_explain_whatever_the_batch(small_run, dataset, test_rows):
    rows = test_rows[:5]
    given = maps_of(small_run, dataset, rows, "tibav", target="label", batch_size=4)
    assert given.maps.shape == (5, 4, 4, 4)
    batch = next(iter(clip_maps.clip_batches(small_run, dataset, rows, 8)))
    frames = {"frames": jax.numpy.asarray(batch["frames"][:5])}
    inputs = evaluation_inputs(small_run.config, frames)
    variables, labels = small_run.variables, batch["label"][:5]
    alone = explain(small_run.model, variables, inputs, "tibav", target=labels, normalize=False)
    np.testing.assert_array_equal(given.target, labels)
    np.testing.assert_allclose(given.maps, alone.maps, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(given.logits, alone.logits, rtol=1e-4, atol=1e-5)
    # Of two calls the second is steady.
    assert given.ms_per_clip > 0


def test_controls_explain_the_predicted_class_and_have_no_time(small_run, dataset, test_rows):
    found = [
        maps_of(small_run, dataset, test_rows[:3], c, batch_size=4) for c in ("random", "centre")
    ]
    for given in found:
        np.testing.assert_array_equal(given.target, given.logits.argmax(-1))
        assert np.isnan(given.ms_per_clip)
    # One row's random map is the same beside other rows.
    again = maps_of(small_run, dataset, test_rows[2:3], "random", batch_size=4)
    np.testing.assert_array_equal(found[0].maps[2], again.maps[0])


def test_the_centre_comes_first_and_the_corners_last():
    one = control_maps("centre", np.array([7]), (2, 3, 3))[0]
    np.testing.assert_array_equal(one[0], one[1])
    assert one[0].argmax() == 4
    assert one[0, 0, 0] == one[0].min() == 0


def test_time_shuffled_moves_every_clips_frames_as_they_are():
    maps = np.arange(2 * 4, dtype=np.float32).reshape(2, 4, 1, 1)
    shuffled = time_shuffled(maps, np.array([3, 4]))
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), maps)
    assert all((a != b).any() for a, b in zip(shuffled, maps, strict=True))


def test_on_grid_averages_pixels_and_spreads_coarse_places():
    pixels = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(on_grid(pixels, (1, 2, 2))[0, 0], [[2.5, 4.5], [10.5, 12.5]])
    coarse = np.array([1.0, 3.0], np.float32).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(on_grid(coarse, (4, 1, 2))[0, :, 0, 1], [1, 1, 3, 3])
    # Parts that do not meet: the middle third is half of either.
    np.testing.assert_allclose(on_grid(coarse, (3, 1, 1)).ravel(), [1, 2, 3])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": "magic"}, "choose from tibav"),
        ({"method": "tibav", "target": "guess"}, "expected 'predicted', 'label' or classes"),
        ({"method": "tibav", "target": 6}, "expected 0 to 5"),
        ({"method": "random", "modality": "audio"}, "is one of video"),
    ],
)
def test_what_cannot_be_explained_is_one_clear_line(small_run, dataset, test_rows, words, message):
    with pytest.raises(UserError, match=message):
        maps_of(small_run, dataset, test_rows, **words)
