"""Trends and parts: what is averaged, what is drawn, and that finished parts are not made again."""

import numpy as np
import pytest

from aver_jax.experiments.pages.relevance.facial_parts import confusions_figure
from aver_jax.experiments.pages.relevance.trends import correct_groups, frames_figure, maps_figure
from aver_jax.experiments.relevance.trends import scaled
from aver_jax.report.figures import png


def test_only_correctly_classified_clips_are_averaged():
    groups = correct_groups(np.array([0, 1, 1, 2, 0]), np.array([0, 1, 0, 0, 0]), 3)
    assert {c: list(g) for c, g in groups.items()} == {0: [0, 4], 1: [1]}


def test_each_clip_is_scaled_over_its_whole_volume():
    maps = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    maps[1] *= 100
    found = scaled(maps)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert (found.min(axis=(1, 2, 3)) == 0).all()
    assert (found.max(axis=(1, 2, 3)) == 1).all()
    # Frames keep their order of strength.
    assert found[0, 0].mean() < found[0, 2].mean()
    assert (scaled(np.ones((1, 2, 2, 2), np.float32)) == 0).all()


def test_figures_are_drawn_of_every_emotion_that_has_clips():
    maps = {"ANG": np.random.default_rng(0).random((3, 4, 4)), "HAP": np.zeros((3, 4, 4))}
    figure = maps_figure(maps)
    assert len(figure.axes) == 2 * 3 + 1
    titles = [axes.get_title(loc="left") for axes in figure.axes[:6]]
    assert titles == ["frame 1", "frame 2", "frame 3", "", "", ""]
    one = (np.full(3, 0.5), np.full(3, np.nan), np.full(3, np.nan))
    figure = frames_figure({"ANG": one, "HAP": (np.ones(3), np.zeros(3), np.full(3, 2.0))})
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["ANG", "HAP"]
    assert png(figure)


@pytest.mark.filterwarnings("error")
def test_confusions_of_a_class_without_clips_are_empty():
    matrices = [np.array([[3, 1], [0, 0]])] * 8
    figure = confusions_figure(matrices, ["ANG", "HAP"])
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == ["75", "25"]
    assert figure.axes[0].get_title(loc="left") == "nothing: 75%"
