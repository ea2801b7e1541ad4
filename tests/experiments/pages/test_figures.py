"""Figures of studies: pictures of the right size, the same every time."""

import cv2
import numpy as np
import pytest

from aver_jax.experiments.pages import figures
from aver_jax.report.figures import png

CLASSES = ("ANG", "DIS", "FEA")


def decoded(figure) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png(figure, dpi=50), np.uint8), cv2.IMREAD_COLOR)


def test_nearness_in_features_is_nearness_in_the_plane():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 8)
    features = 20 * np.eye(3, 10)[labels] + rng.normal(size=(24, 10))
    points = figures.embedded(features)
    np.testing.assert_array_equal(points, figures.embedded(features))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    same = labels[:, None] == labels[None]
    assert distance[same].mean() < 0.3 * distance[~same].mean()


@pytest.mark.parametrize("number", [1, 4, 6])
def test_confusion_panels_say_nothing_of_a_class_without_clips(number):
    shares = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [np.nan] * 3])
    image = decoded(figures.confusion_panels([("N0", shares)] * number, CLASSES))
    assert image.std() > 5


def test_feature_panels_show_every_network():
    points, labels = np.random.default_rng(0).normal(size=(9, 2)), np.arange(9) % 3
    one = decoded(figures.feature_panels([("video", points, labels)], CLASSES))
    three = decoded(figures.feature_panels([("video", points, labels)] * 3, CLASSES))
    assert three.shape[1] > 2 * one.shape[1]


def test_a_curve_is_the_mean_and_its_band_the_range():
    series = {"N0": {0.0: [0.6, 0.8], 0.3: [0.5, 0.6]}, "N2": {0.0: [0.9, 0.9], 0.3: [0.8, 0.9]}}
    panel = figures.Panel("All test clips", "share of fuzzy clips", "WAR", series)
    figure = figures.score_curves({(0, 0): panel, (1, 0): panel})
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [0.7, 0.55])
    # Neither mark nor dashes nor colour of the two is the same.
    for look in ("get_marker", "get_linestyle", "get_color"):
        assert len({getattr(line, look)() for line in axes.get_lines()}) == 2
    band = axes.collections[0].get_datalim(axes.transData)
    np.testing.assert_allclose((band.y0, band.y1), (0.5, 0.8))
    assert decoded(figure).std() > 5
