"""Timelines: windows lie where they should, one compiled call serves all, the files say it all."""

import csv

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aver_jax.errors import UserError
from aver_jax.prediction.prediction import Clip
from aver_jax.prediction.predictor import Predictor
from aver_jax.prediction.timeline import (
    BATCH_SIZE,
    Region,
    Timeline,
    averaged,
    gaps,
    regions,
    timeline,
    timeline_csv,
    windows,
    words_of,
)
from aver_jax.report import figures
from aver_jax.report.timeline import Stretch, timeline_figure

CLASSES = ("ANG", "DIS", "FEA")


@given(
    st.floats(0, 3), st.floats(0.05, 60), st.floats(0.05, 20), st.floats(0.02, 5, exclude_min=True)
)
def test_windows_cover_the_clip_and_nothing_else(first, length, window, hop):
    spans = windows(first, first + length, window, hop)
    width = min(window, length)
    np.testing.assert_allclose(spans[:, 1] - spans[:, 0], width, atol=1e-9)
    assert spans[0, 0] == pytest.approx(first)
    assert spans[-1, 1] == pytest.approx(first + length, abs=1e-3 * hop + 1e-9)
    assert spans[:, 1].max() <= first + length + 1e-9
    steps = np.diff(spans[:, 0])
    np.testing.assert_allclose(steps[:-1], hop, rtol=1e-6)
    assert (steps > 0).all()
    assert (steps <= hop * (1 + 1e-6)).all()


def test_a_rounded_hop_adds_no_window():
    assert len(windows(0, 3, 1, 0.1)) == 21
    np.testing.assert_allclose(windows(0, 3, 1, 0.3)[-2:], [[1.8, 2.8], [2.0, 3.0]])


def test_too_many_windows_are_one_clear_line():
    with pytest.raises(UserError, match=r"a hop of 1e-05 s gives 900000 windows.*--hop"):
        windows(0, 10, 1, 1e-5)


def record(frames=30, first=0.1, seconds=2.0):
    """Ten frames a second from `first` on, and a sound from 0."""
    images = [np.full((8, 8, 3), 8 * i, np.uint8) for i in range(frames)]
    return {
        "frames": [cv2.imencode(".png", image)[1].tobytes() for image in images],
        "timestamps": np.float32(first + np.arange(frames) / 10),
        "pcm": np.arange(round(seconds * 16_000), dtype="<i2").tobytes(),
        "clip_id": "x",
    }


BOTH = ("video", "audio")


@pytest.mark.parametrize(
    ("clip", "used", "alone", "expected"),
    [
        (record(), ("video",), True, [(0.1, 3.1, "video")]),
        (record(), ("audio",), True, [(0.0, 2.0, "audio")]),
        # A tenth of a second is no window to speak of; a second is.
        (record(), BOTH, True, [(0.1, 2.0, "both"), (2.0, 3.1, "video")]),
        (record(), BOTH, False, [(0.1, 2.0, "both")]),
        (record(5, 0.0, 4.0), BOTH, True, [(0.0, 0.5, "both"), (0.5, 4.0, "audio")]),
        (record(20, 3.0, 1.0), BOTH, True, [(0.0, 1.0, "audio"), (3.0, 5.0, "video")]),
        (record(20, 3.0, 1.0), BOTH, False, [(0.0, 5.0, "both")]),
        (record(2, 3.0, 0.1), BOTH, True, [(3.0, 3.2, "video")]),
    ],
)
def test_windows_lie_where_all_that_is_used_is_there_or_one_branch_answers(
    clip, used, alone, expected
):
    found = regions(Clip("x", clip, used), 0.5, alone)
    assert [words_of(part.used) for part in found] == [words for *_, words in expected]
    edges = [(part.start, part.stop) for part in found]
    np.testing.assert_allclose(edges, [span for *span, _ in expected], atol=1e-6)


def test_what_no_window_covers_is_said():
    clip = Clip("x", record(5, 0.0, 4.0), BOTH)
    assert gaps(clip, regions(clip, 0.5, True)) == []
    ((start, stop, why),) = gaps(clip, regions(clip, 0.5, False))
    assert (start, stop) == pytest.approx((0.5, 4.0))
    assert why == "no video"


class ReadsPixelsAndSamples:
    """Logits that say which frames and samples a window holds, and how often that was compiled.

    Of frames alone they are twice as high.
    """

    takes_one_modality = True

    def __init__(self):
        self.compiled = 0

    compiler_options = None

    def for_inference(self, unrolled):
        return self

    def apply(self, variables, inputs):
        self.compiled += 1
        means = inputs["frames"].mean((1, 2, 3, 4))
        if "audio" not in inputs:
            video = 2 * jax.numpy.stack([means, 1 + 0 * means, 0 * means], axis=1)
            return video, {"features": video, "features_video": video, "logits_video": video}
        lengths = inputs["audio_segments"].astype(jax.numpy.float32)
        logits = jax.numpy.stack([means, lengths, 0 * means], axis=1)
        return logits, {"features": logits, "features_video": logits, "logits_video": 2 * logits,
                        "logits_audio": logits}  # fmt: skip


@pytest.fixture
def predictor():
    from aver_jax.config import base_config
    from aver_jax.runs.run_folder import LoadedRun

    config = base_config()
    config.data.update(
        {"num_frames": 2, "image_size": 8, "max_seconds": 1.0, "modalities": ("video", "audio")}
    )
    config.frontend.normalization = "half"
    preparation = {"detector": "haar", "margin": 1.3, "size": 8}
    run = LoadedRun(
        "run", ReadsPixelsAndSamples(), {}, config, CLASSES, "p", ("video", "audio"),
        preparation, {}, 0,
    )  # fmt: skip
    return Predictor(run, temperature=2.0)


def test_every_window_is_answered_from_its_own_frames_and_sound(predictor, tmp_path):
    long, short = (Clip(tmp_path, record(30, 0.0, s), BOTH) for s in (3.0, 1.0))
    found = timeline(predictor, long, window=0.5, hop=0.125)
    assert len(found.spans) == 21 > 2 * BATCH_SIZE
    # Frames of value 8 i at i / 10 s, the two nearest to a quarter and three quarters.
    value = {}
    for place, (start, _) in enumerate(found.spans):
        frames = np.round(10 * (start + np.array([0.125, 0.375])) - 1e-3)
        value[place] = (8 * frames.mean() / 255 - 0.5) / 0.5
    logits = np.array([[v, 1.0, 0.0] for v in value.values()])
    np.testing.assert_allclose(found.branches["video"], softmax(2 * logits), atol=0.02)
    np.testing.assert_allclose(found.probabilities, softmax(logits / 2), atol=0.01)
    # The function compiled for the long clip serves the short one too.
    compiled = predictor.run.model.compiled
    short = timeline(predictor, short)
    assert sum(len(used) == 2 for used in short.used) == 9
    assert predictor.run.model.compiled == compiled + 1
    # Two seconds of picture remain after the sound: the video branch's, at temperature 1.
    alone = np.array([used == ("video",) for used in short.used])
    assert alone.sum() == 25
    np.testing.assert_allclose(short.spans[alone][[0, -1]], [[1.0, 1.5], [2.5, 3.0]], atol=1e-6)
    assert np.isnan(short.branches["audio"][alone]).all()
    np.testing.assert_array_equal(short.probabilities[alone], short.branches["video"][alone])


def test_windows_longer_than_the_training_clips_are_heard_whole(predictor, tmp_path):
    clip = Clip(tmp_path, record(30, 0.0, 3.0), BOTH)
    found = timeline(predictor, clip, window=2.5, hop=0.5)
    np.testing.assert_allclose(found.spans, [[0, 2.5], [0.5, 3.0]])
    segments = 1 + np.ceil((2.5 * 250 - 250) / 125)
    ratio = found.branches["video"][:, 1] / found.branches["video"][:, 2]
    np.testing.assert_allclose(np.log(ratio) / 2, segments, rtol=1e-3)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_table_has_a_line_per_window():
    spans = windows(0, 2, 1, 0.5)
    probabilities = np.float32([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]])
    parts = (Region(0, 1.5, BOTH), Region(1, 2, ("video",)))
    by_audio = probabilities[::-1].copy()
    line = Timeline(spans, (BOTH,) * 3, probabilities, {"audio": by_audio}, parts[:1])
    assert "used" not in timeline_csv(line, CLASSES)
    by_audio[2] = np.nan
    line = Timeline(spans, (BOTH, BOTH, ("video",)), probabilities, {"audio": by_audio}, parts)
    rows = list(csv.DictReader(timeline_csv(line, CLASSES).splitlines()))
    assert [row["prediction"] for row in rows] == ["DIS", "ANG", "FEA"]
    assert [(row["start"], row["stop"]) for row in rows][1] == ("0.5000", "1.5000")
    assert [float(row["audio_FEA"]) for row in rows[:2]] == pytest.approx([0.8, 0.2])
    assert rows[2]["audio_FEA"] == ""
    assert [row["used"] for row in rows] == ["both", "both", "video"]


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("names", [CLASSES, [f"a long name of class {i}" for i in range(9)]])
def test_the_figure_takes_any_number_of_windows_and_classes(count, names):
    rng = np.random.default_rng(0)
    values = softmax(rng.normal(size=(count, len(names))))
    spans = np.stack([np.arange(count) * 0.5, np.arange(count) * 0.5 + 1], axis=1)
    picture = [
        cv2.imdecode(
            np.frombuffer(
                figures.png(timeline_figure(spans, values, names, branches, "clip"), dpi=50),
                np.uint8,
            ),
            cv2.IMREAD_COLOR,
        )
        for branches in ({}, {"video": values, "audio": values})
    ]
    assert picture[1].shape[0] > picture[0].shape[0] + 100
    assert all(p[1:].std() > 10 for p in picture)


def test_stretches_of_one_branch_and_without_windows_are_drawn_and_lines_break():
    spans = np.array([[0, 1], [0.5, 1.5], [2, 3], [2.5, 3.5]])
    values = softmax(np.random.default_rng(0).normal(size=(4, 3)))
    figure = timeline_figure(
        spans, values, CLASSES, {}, "clip", runs=[2],
        alone=[Stretch(2, 3.5, "video alone")], uncovered=[Stretch(3.5, 5, "no video")],
    )  # fmt: skip
    top = figure.axes[1]
    texts = [text.get_text() for text in top.texts]
    assert {"video alone", "no video", *CLASSES} <= set(texts)
    assert top.get_xlim() == (0, 5)
    assert len(top.lines) == 2 * 3 + 2
    styles = {line.get_linestyle() for line in top.lines[::2][:3]}
    assert len(styles) > 1


def test_many_windows_are_drawn_as_means_of_some():
    spans = np.stack([np.arange(10.0), np.arange(10.0) + 2], axis=1)
    probabilities = np.float32(np.arange(30).reshape(10, 3))
    used = (BOTH,) * 7 + (("video",),) * 3
    line = Timeline(spans, used, probabilities, {"video": 2 * probabilities}, ())
    assert averaged(line, 10) == (line, 1)
    short, each = averaged(line, 4)
    assert each == 3
    # 0-2, 3-5, 6 alone before another modality, 7-9.
    np.testing.assert_allclose(short.spans[:, 0], [1, 4, 6, 8])
    np.testing.assert_allclose(short.probabilities[:, 0], [3, 12, 18, 24])
    np.testing.assert_allclose(short.branches["video"], 2 * short.probabilities)
    assert short.used == (BOTH, BOTH, BOTH, ("video",))
