"""Figures: readable for any result, the same bytes every time, no global state."""

import subprocess
import sys

import cv2
import matplotlib
import numpy as np
import pytest

from aver_jax.evaluation import scores
from aver_jax.report import figures

CLASSES = ["neutral", "surprised", "ANG"]


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)  # the third class has no clips
    logits = rng.normal(size=(40, 3))
    logits[np.arange(40), labels] += 1
    actors = np.array([f"a{i % 4}" for i in range(40)])
    branches = {"audio": rng.normal(size=(40, 3)), "video": logits}
    result = scores.score_clips(logits, labels, actors, actors, CLASSES, 50, branches)
    result["temperature"] = {"value": 1.5, **scores.calibration(logits / 1.5, labels)}
    return {**result, "classes": CLASSES}


def _pixels(figure):
    return cv2.imdecode(np.frombuffer(figures.png(figure, dpi=60), np.uint8), cv2.IMREAD_COLOR)


RECORDS = [
    {"step": 5, "epoch": 0.5, "train/loss": 2.0, "train/war": 0.1, "learning_rate": 1e-3},
    {"step": 10, "epoch": 1.0, "train/loss": 1.0, "train/war": 0.4, "learning_rate": 5e-4},
    {"step": 10, "epoch": 1.0, "validation/loss": 1.5, "validation/war": 0.3},
]


@pytest.mark.parametrize("theme", [figures.LIGHT, figures.DARK])
def test_figures_stand_on_their_theme_and_leave_matplotlib_as_it_was(results, theme):
    before = dict(matplotlib.rcParams)
    for figure in (
        figures.confusion(results, theme),
        figures.reliability(results, theme),
        figures.branches(results, theme),
        figures.training_curves(RECORDS, theme),
    ):
        pixels = _pixels(figure)
        background = tuple(int(theme.background[i : i + 2], 16) for i in (5, 3, 1))
        assert (pixels[0, 0] == background).all()
        assert pixels.std() > 10
    assert dict(matplotlib.rcParams) == before


def test_pyplot_and_its_open_figures_are_not_involved():
    code = "import sys; from aver_jax.report import figures, html; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(run.stdout.split())
    assert "aver_jax.report.figures" in loaded
    assert not loaded & {"matplotlib.pyplot", "jax", "av", "librosa"}


def test_an_svg_is_the_same_every_time(results):
    first, second = (figures.svg(figures.confusion(results)) for _ in range(2))
    assert first == second


def test_confusion_shows_counts_and_shares_and_nothing_for_an_absent_class(results):
    figure = figures.confusion(results)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    counts = np.array(results["confusion"])
    shares = counts[0] / counts[0].sum()
    assert f"{100 * shares[0]:.0f}%" in texts
    assert str(counts[0, 0]) in texts
    assert "neutral  (" in axes.get_yticklabels()[0].get_text()
    np.testing.assert_allclose(axes.images[0].get_array()[2], 0)


def test_bars_of_branches_are_their_scores_beside_the_fusions(results):
    (axes,) = figures.branches(results).axes
    heights = [bar.get_height() for bars in axes.containers[::2] for bar in bars]
    entries = [results["branches"]["audio"], results["branches"]["video"], results["metrics"]]
    expected = [entry[score]["value"] for score in ("war", "uar") for entry in entries]
    np.testing.assert_allclose(heights, expected)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["audio", "video", "fused"]


def test_curves_of_a_fusion_compare_like_with_like_and_show_each_branch():
    records = [
        {"step": 5, "train/loss": 6.0, "train/loss_fused": 2.0, "train/loss_video": 4.0},
        {"step": 5, "validation/loss": 2.5, "validation/war": 0.4, "validation/war_video": 0.3},
    ]
    loss, score, _ = figures.training_curves(records).axes
    np.testing.assert_array_equal(loss.get_lines()[0].get_xydata(), [[5, 2.0]])
    assert [line.get_label() for line in score.get_lines()] == [
        "validation WAR",
        "validation WAR, video alone",
    ]


def test_curves_hold_what_was_logged_and_miss_nothing_when_less_was_logged():
    loss, score, rate = figures.training_curves(RECORDS).axes
    train, validation = loss.get_lines()
    np.testing.assert_array_equal(train.get_xydata(), [[0.5, 2.0], [1.0, 1.0]])
    np.testing.assert_array_equal(validation.get_xydata(), [[1.0, 1.5]])
    assert [line.get_label() for line in score.get_lines()] == ["training WAR", "validation WAR"]
    assert len(rate.get_lines()) == 1
    _pixels(figures.training_curves([{"step": 1, "train/loss": 1.0}]))
