"""The seconds that are classified: evaluation's, moved to where sound and picture are."""

import numpy as np
import pytest

from aver_jax.input import time_spans
from aver_jax.input.clips import clip_window

BOTH = ("video", "audio")


def record(picture, sound):
    """Ten frames a second over `picture`, and samples for `sound` seconds."""
    first, last = picture
    return {
        "timestamps": np.float32(first + np.arange(round(10 * (last - first))) / 10),
        "pcm": bytes(2 * round(16_000 * sound)),
    }


@pytest.mark.parametrize("used", [("video",), ("audio",), BOTH])
@pytest.mark.parametrize(("picture", "sound"), [((0, 10), 9.8), ((0.1, 4), 3.7), ((0, 9), 10)])
def test_ordinary_clips_are_looked_at_where_evaluation_looks(picture, sound, used):
    clip = record(picture, sound)
    assert time_spans.window(clip, used, 6.0) == clip_window(clip, 6.0)


@pytest.mark.parametrize(
    ("picture", "sound", "used", "expected"),
    [
        ((0, 10), 1, BOTH, (0, 6)),
        ((0, 10), 3, BOTH, (0, 6)),
        ((0, 0.5), 11.5, BOTH, (0, 0.5)),  # only where the face is
        ((8, 10), 10, BOTH, (8, 10)),
        ((0, 6), 11.5, BOTH, (0, 6)),
        ((0, 10), 6.5, BOTH, (0.5, 6.5)),
        ((0, 7), 10, BOTH, (1, 7)),
        ((0, 7), 10, ("audio",), (2, 8)),
        ((5, 12), 3, BOTH, (3, 9)),  # never both: the middle
    ],
)
def test_the_middle_is_moved_to_where_both_are(picture, sound, used, expected):
    assert time_spans.window(record(picture, sound), used, 6.0) == pytest.approx(expected, abs=1e-5)


def test_how_much_of_a_span_a_modality_fills():
    clip = record((1, 4), 2.0)
    assert time_spans.seconds_within(clip, "video", (0, 3)) == pytest.approx(2)
    assert time_spans.seconds_within(clip, "audio", (1.5, 9)) == pytest.approx(0.5)
    assert time_spans.seconds_within(clip, "audio", (2, 9)) == 0
    assert time_spans.seconds_within(record((1, 4), 0), "audio", (0, 9)) == 0
    assert time_spans.shared(record((3, 4), 2), BOTH) is None
