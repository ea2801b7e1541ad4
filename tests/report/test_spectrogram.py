"""Pictures of sounds: colour lies where the relevance is, and nowhere else."""

import cv2
import numpy as np
import pytest

from aver_jax.report import figures
from aver_jax.report.overlay import heat_colors
from aver_jax.report.spectrogram import sound_figure

RATE, N_FFT, HOP = 16_000, 512, 64


def picture(seconds=1.0, values=None, start=0.0, mel=False):
    """The figure's pixels and its spectrogram axes' corners in them (left, right, top, bottom)."""
    samples = round(seconds * RATE)
    pcm = (6000 * np.sin(2 * np.pi * 1000 * np.arange(samples) / RATE)).astype(np.int16)
    frames = 1 + samples // HOP
    values = np.zeros((257, frames)) if values is None else values(frames)
    times = start + np.arange(frames) * HOP / RATE
    frequencies = np.arange(257) * RATE / N_FFT
    figure = sound_figure(pcm, RATE, "clip", values, times, frequencies, N_FFT, mel)
    pixels = cv2.imdecode(np.frombuffer(figures.png(figure, dpi=80), np.uint8), cv2.IMREAD_COLOR)
    # The scale of colours is a child of the strip, so the spectrogram is the last of two.
    box = figure.axes[1].get_position()
    height, width = pixels.shape[:2]
    corners = box.x0 * width, box.x1 * width, (1 - box.y1) * height, (1 - box.y0) * height
    return pixels[..., ::-1].astype(int), [round(c) for c in corners], figure


def colourful(pixels):
    return np.ptp(pixels, axis=-1) > 40


def test_without_relevance_the_spectrogram_is_grey():
    pixels, (left, right, top, bottom), _ = picture()
    inside = pixels[top + 2 : bottom - 2, left + 2 : right - 2]
    assert not colourful(inside).any()
    # A tone of 1 kHz is a light line an eighth of the way up.
    brightest = inside.sum(-1).mean(1).argmax()
    assert brightest / len(inside) == pytest.approx(1 - 1 / 8, abs=0.02)


def test_colour_lies_where_the_relevance_is():
    def values(frames):
        values = np.zeros((257, frames))
        values[128:192, frames // 4 : frames // 2] = 1  # 4 to 6 kHz
        return values

    pixels, (left, right, top, bottom), _ = picture(values=values)
    inside = colourful(pixels[top + 2 : bottom - 2, left + 2 : right - 2])
    rows, columns = np.nonzero(inside)
    height, width = inside.shape
    assert (columns.min() / width, columns.max() / width) == pytest.approx((0.25, 0.5), abs=0.01)
    assert (rows.min() / height, rows.max() / height) == pytest.approx((0.25, 0.5), abs=0.02)
    strip = pixels[: top - 4, left + 2 : right - 2]
    hottest = np.abs(strip - heat_colors(1.0)).sum(-1).min(0) < 12
    assert hottest[round(0.3 * width) : round(0.45 * width)].mean() > 0.9


def test_times_are_those_of_the_clip():
    _, _, figure = picture(start=3.0)
    assert figure.axes[1].get_xlim() == pytest.approx((3.0, 4.0))


def test_mel_bands_have_a_mel_axis():
    _, _, figure = picture(mel=True)
    assert figure.axes[1].get_yscale() == "symlog"


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_a_sound_shorter_than_a_window_is_drawn(seconds):
    pixels, _, _ = picture(seconds)
    assert pixels.shape[2] == 3


def test_what_the_scale_means_is_written():
    def texts(values=None):
        _, _, figure = picture(values=values)
        parts = [*figure.axes, *figure.axes[0].child_axes]
        return " ".join(text.get_text() for axes in parts for text in axes.texts)

    assert "no positive relevance" in texts()
    assert "relevance, scaled by itself" in texts(lambda frames: np.eye(257, frames))
