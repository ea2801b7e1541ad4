"""The picture of a sound: its log spectrogram, with the relevance for a class over it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from aver_jax.report.figures import DARK, Theme, new_figure, themed
from aver_jax.report.overlay import ALPHA, heat_colors

# Quieter than this below the loudest is drawn as silence.
RANGE_DB = 70.0
# Relevance below this share of the highest is not drawn: it would only veil the spectrogram.
LEAST = 0.1
# Samples between columns of the picture, and how many of these a long sound has.
_LEAST_HOP = 64
_MOST_COLUMNS = 1500


def sound_figure(
    pcm,
    sample_rate: int,
    title: str,
    values,
    times,
    frequencies,
    n_fft: int,
    mel: bool = False,
    notes: Sequence[str] = (),
    flat: str = "no positive relevance",
    theme: Theme = DARK,
) -> Figure:
    """Draws the sound that a model heard, in dB below its loudest, and the relevance over it.

    The spectrogram is grey, so that colour means relevance and nothing else; above it stands the
    relevance of each moment, summed over frequency.

    Args:
      pcm: int16 [S], what the model heard.
      sample_rate: Hz.
      title: above the figure.
      values: float [F, K] relevance in 0..1.
      times: float [K], seconds of the frames of `values`, the first of them that of sample 0;
        between them the picture is linear.
      frequencies: float [F], Hz, ascending.
      n_fft: samples of a Fourier transform, as the model's.
      mel: whether the frequency axis is in mel, as the model's bands are.
      notes: what else there is to know, below the axis.
      flat: written instead of the scale of colours where all `values` are 0.
      theme: colours.
    """
    # librosa brings numba along, which takes a second: only when a sound is drawn.
    import librosa
    import librosa.display

    samples = np.asarray(pcm, np.float32) / 32_768
    # A shorter sound than a window is drawn with the silence after it.
    samples = np.pad(samples, (0, max(0, n_fft - len(samples))))
    hop = max(_LEAST_HOP, len(samples) // _MOST_COLUMNS)
    spectrum = np.abs(librosa.stft(samples, n_fft=n_fft, hop_length=hop, pad_mode="constant"))
    # Silence has no loudest part to be measured by.
    loudest = max(float(spectrum.max()), 1e-5)
    decibels = librosa.amplitude_to_db(spectrum, ref=loudest, top_db=None)
    seconds = times[0] + np.arange(decibels.shape[1]) * (hop / sample_rate)
    values = np.stack([np.interp(seconds, times, row) for row in np.asarray(values)])
    with themed(theme):
        figure = new_figure(10.2, 4.6)
        moments, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 11))
        librosa.display.specshow(
            np.maximum(decibels, -RANGE_DB),
            x_coords=seconds,
            y_coords=librosa.fft_frequencies(sr=sample_rate, n_fft=n_fft),
            x_axis="s",
            y_axis="mel" if mel else "linear",
            cmap=_greys(theme),
            ax=axes,
        )
        axes.pcolormesh(seconds, frequencies, _veil(values), shading="nearest", zorder=2)
        axes.set_ylim(0, sample_rate / 2)
        axes.set_xlim(seconds[0], seconds[-1])
        axes.set(xlabel="\n".join(["seconds", *notes]), ylabel="frequency (Hz)")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda hertz, _: f"{hertz:.0f}"))
        axes.grid(visible=False)
        _moments(moments, seconds, values.sum(axis=0), "" if values.max() > 0 else flat)
        # A given height keeps it beside the scale.
        moments.set_title(title, y=1.35)
    return figure


def _greys(theme: Theme) -> ListedColormap:
    """Returns greys from the figure's ground, for silence, to one that colour still stands on."""
    ground = np.array([int(theme.background[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    ramp = np.linspace(0, 1, 256)[:, None]
    return ListedColormap(ground + (0.78 - ground) * ramp)


def _veil(values: np.ndarray) -> np.ndarray:
    """Returns colours of relevance, float [F, K, 4], clear where there is little of it."""
    opacity = ALPHA * np.clip((values - LEAST) / (1 - LEAST), 0, 1) ** 0.7
    return np.concatenate([heat_colors(values) / 255, opacity[..., None]], axis=-1)


def _moments(axes, times: np.ndarray, relevance: np.ndarray, flat: str) -> None:
    """Draws a strip of the relevance over time, and its scale above the right end."""
    share = relevance / max(float(relevance.max()), 1e-12)
    extent = (times[0], times[-1], 0, 1)
    axes.imshow(heat_colors(share)[None], extent=extent, aspect="auto", interpolation="nearest")
    axes.set_ylabel("sum", rotation=0, ha="right", va="center")
    words = {"size": 8, "va": "center"}
    if flat:
        axes.text(1.0, 1.75, flat, ha="right", transform=axes.transAxes, **words)
    else:
        scale = axes.inset_axes((0.87, 1.5, 0.08, 0.5))
        scale.imshow(heat_colors(np.linspace(0, 1, 64))[None], aspect="auto")
        words["transform"] = scale.transAxes
        scale.text(-0.08, 0.45, "relevance, scaled by itself: less", ha="right", **words)
        scale.text(1.08, 0.45, "more", ha="left", **words)
    for part in (axes, *axes.child_axes):
        part.set_yticks([])
        part.tick_params(bottom=False, labelbottom=False)
        part.spines[:].set_visible(False)
        part.grid(visible=False)
