"""Log-magnitude spectrograms in overlapping segments (Chang's thesis, 4.5.2), on the device.

A clip of L samples at 16 kHz has 1 + L // hop frames, frame i centred on sample i * hop and zeros
beyond both ends: those of `librosa.stft` of the clip's own samples. Longer buffers change nothing.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aver_jax.frontend import fourier
from aver_jax.frontend.feature_grid import cell_weights
from aver_jax.frontend.fields import check_known
from aver_jax.frontend.mel import mel_edges, mel_filters

SAMPLE_RATE = 16_000  # Hz
SCALES = ("log1p", "db")
# Below this a magnitude is silence in dB: -100.
_SMALLEST_MAGNITUDE = 1e-5


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a spectrogram is: the fields of `config.frontend.spectrogram`, checked.

    Window, hop and n_fft are the thesis'; a segment of 250 frames (1.0 s) is what its counts of
    multiply-adds say. It states no overlap.

    Attributes:
      n_fft: samples of a Fourier transform.
      window: samples of the periodic Hann window, in the middle of the n_fft.
      hop: samples from one frame to the next.
      scale: `log1p` is log(1 + magnitude), `db` is 20 log10(magnitude), at least -100.
      bands: 0 keeps all n_fft / 2 + 1 frequencies; otherwise that many mel bands, whose magnitude
        is the root of the band's power.
      segment: W, frames of a segment.
      overlap: share of a segment that the next one repeats.
      mean, deviation: fixed standardisation, in the units of `scale`; 0 and 1 leave the values.
    """

    n_fft: int = 512
    window: int = 512
    hop: int = 64
    scale: str = "log1p"
    bands: int = 0
    segment: int = 250
    overlap: float = 0.5
    mean: float = 0.0
    deviation: float = 1.0

    @property
    def num_bands(self) -> int:
        """F, the rows of a spectrogram."""
        return self.bands or self.n_fft // 2 + 1

    @property
    def step(self) -> int:
        """Frames from the start of one segment to the start of the next."""
        return max(1, round(self.segment * (1 - self.overlap)))


def checked_settings(fields: Mapping[str, Any] | Settings) -> Settings:
    """Returns `Settings` from `config.frontend.spectrogram`; a missing field has its default.

    Raises:
      ValueError: for an unknown field, or a value out of its range.
    """
    if isinstance(fields, Settings):
        return fields
    known = [field.name for field in dataclasses.fields(Settings)]
    check_known("frontend.spectrogram", fields, known)
    settings = Settings(**{name: fields[name] for name in known if name in fields})
    if settings.scale not in SCALES:
        raise ValueError(
            f"frontend.spectrogram.scale is {settings.scale!r}; expected one of {', '.join(SCALES)}"
        )
    limits = {
        "n_fft": (16, 65_536),
        "window": (2, settings.n_fft),
        "hop": (1, settings.n_fft),
        "bands": (0, settings.n_fft // 2 + 1),
        "segment": (1, 100_000),
        "overlap": (0, 0.95),
        "mean": (-1e6, 1e6),
        "deviation": (1e-6, 1e6),
    }
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        whole = isinstance(getattr(Settings, name), int)
        if not isinstance(value, int if whole else int | float) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise ValueError(
                f"frontend.spectrogram.{name} is {value!r}; expected {kind} from {low:g} to "
                f"{high:g}"
            )
    if settings.n_fft % 2:
        raise ValueError(f"frontend.spectrogram.n_fft is {settings.n_fft}; expected an even number")
    if settings.bands:
        empty = int((~_filters(settings).any(1)).sum())
        if empty:
            raise ValueError(
                f"frontend.spectrogram.bands is {settings.bands}, of which {empty} would hold no "
                f"frequency of a transform of {settings.n_fft} samples; take fewer, or a larger "
                "n_fft"
            )
    return settings


def num_frames(settings: Mapping[str, Any] | Settings, samples: Any) -> Any:
    """Returns the STFT frames of so many samples (int or int32 array): 1 + samples // hop."""
    hop = checked_settings(settings).hop
    return (1 + samples // hop) * (samples > 0)


def num_segments(settings: Mapping[str, Any] | Settings, samples: Any) -> Any:
    """Returns N, the segments of that many samples (int or int32 array).

    As many as cover the samples // hop frames that lie in the sound with their whole hop, and at
    least one of any sound. The frame after those, centred on the very end, would otherwise cost a
    segment of its own, nearly all of it zeros, wherever a sound lasts a whole number of segments:
    1.0 s at the thesis' settings is one segment, 6.0 s are 11.
    """
    settings = checked_settings(settings)
    beyond = samples // settings.hop - settings.segment
    beyond = beyond * (beyond > 0)
    return (1 + -(-beyond // settings.step)) * (samples > 0)


def frequencies(settings: Mapping[str, Any] | Settings) -> np.ndarray:
    """Returns the Hz of a spectrogram's rows, float64 [F], ascending; of a mel band its centre."""
    settings = checked_settings(settings)
    if settings.bands:
        return mel_edges(settings.bands, SAMPLE_RATE)[1:-1]
    return np.arange(settings.num_bands) * (SAMPLE_RATE / settings.n_fft)


def samples_of(audio: Array, length: Array) -> Array:
    """Returns int16 [B,S] as float32 in -1..1, zeros from `length` (int32 [B]) on.

    Raises:
      ValueError: for another type or shape.
    """
    if audio.dtype != "int16" or audio.ndim != 2:
        raise ValueError(
            f"batch['audio'] is {audio.dtype} {list(audio.shape)}; expected int16 [B,S]"
        )
    if length.shape != audio.shape[:1]:
        raise ValueError(
            f"batch['audio_length'] is {list(length.shape)}; expected [{audio.shape[0]}], one "
            "for each row of batch['audio']"
        )
    inside = jnp.arange(audio.shape[1])[None] < length[:, None]
    return jnp.where(inside, audio.astype(jnp.float32) / 32_768, 0.0)


def frames_of(settings: Settings, samples: Array, length: Array) -> Array:
    """Returns standardised spectrograms, float32 [B,frames,F], frames = 1 + S // hop.

    Frames past the end of a clip are exactly 0.

    Args:
      settings: checked.
      samples: float32 [B,S], zeros from `length` on.
      length: int32 [B].
    """
    magnitudes = _magnitudes(settings, samples)
    if settings.scale == "log1p":
        values = jnp.log1p(magnitudes)
    else:
        values = 20 * jnp.log10(jnp.maximum(magnitudes, _SMALLEST_MAGNITUDE))
    values = (values - settings.mean) / settings.deviation
    inside = jnp.arange(values.shape[1])[None] < num_frames(settings, length)[:, None]
    return jnp.where(inside[..., None], values, 0.0)


def segments_of(settings: Settings, values: Array, samples: int) -> Array:
    """Returns segments [B,N,F,W] of spectrograms [B,frames,F], zeros after the last frame.

    N is `num_segments(settings, samples)`: what the longest clip of the buffer needs. The very last
    frame of a clip may lie beyond its last segment, see there.
    """
    count = num_segments(settings, samples)
    return _overlapping(values, settings.segment, settings.step, count).swapaxes(2, 3)


def assembled(
    segment_maps: Array,
    settings: Mapping[str, Any] | Settings,
    frames: int,
    segments: Array | None = None,
) -> Array:
    """Returns maps over segments as one map over the spectrogram: float32 [B,F,frames].

    Each map is enlarged to the F x W area that it looks at, linearly between the places that its
    cells are centred on (`feature_grid`). Where segments overlap they are cross-faded: a segment
    weighs most in its middle, and nearly nothing at its ends, so that no seam shows.

    Args:
      segment_maps: float [B,N,h,w], of a ResNet.
      settings: `config.frontend.spectrogram`.
      frames: of the whole spectrogram; what no segment covers is 0, as the very last frame of a
        clip may be (see `num_segments`).
      segments: int32 [B], how many of the N are valid (`audio_segments`); None: all of them.
    """
    settings = checked_settings(settings)
    batch, count, height, width = segment_maps.shape
    if segments is None:
        segments = jnp.full((batch,), count)
    valid = (jnp.arange(count)[None] < segments[:, None]).astype(jnp.float32)
    ramp = np.arange(1, settings.segment + 1, dtype=np.float32)
    # [N,W] places in the spectrogram, and [N,W,B] weights there.
    places = (np.arange(count) * settings.step)[:, None] + np.arange(settings.segment)
    weights = np.minimum(ramp, ramp[::-1])[None, :, None] * valid.T[:, None]
    maps = jnp.einsum(
        "bnhw,fh,kw,nkb->nkbf",
        segment_maps.astype(jnp.float32),
        cell_weights(height, settings.num_bands),
        cell_weights(width, settings.segment),
        weights,
        # TF32 would leave three digits.
        precision="highest",
    )
    length = max(frames, int(places[-1, -1]) + 1)
    total = jnp.zeros((length, batch, settings.num_bands)).at[places].add(maps)
    covers = jnp.zeros((length, batch)).at[places].add(weights)
    return (total / jnp.maximum(covers, 1)[..., None])[:frames].transpose(1, 2, 0)


def _magnitudes(settings: Settings, samples: Array) -> Array:
    """Returns magnitudes [B,frames,F] of samples [B,S].

    In float32 throughout: a magnitude is off by some 1e-7 of the loudest one of its frame, which
    is 1e-6 of log1p, and below .01 dB down to 80 dB under that loudest one.
    """
    margin = settings.n_fft // 2
    count = 1 + samples.shape[1] // settings.hop
    frames = _overlapping(
        jnp.pad(samples, ((0, 0), (margin, 0))), settings.n_fft, settings.hop, count
    )
    values = fourier.power(frames * _window(settings)[None, None])
    if settings.bands:
        # TF32 would leave three digits.
        filters = _filters(settings).T
        values = jnp.matmul(values, filters, precision=jax.lax.Precision.HIGHEST)
    return jnp.sqrt(values)


def _overlapping(x: Array, width: int, step: int, count: int) -> Array:
    """Cuts x [B,L,...] into windows [B,count,width,...], one every `step`; zeros after its end.

    Joined from blocks of `step`: segments gathered by their indices took 2.5 times as long on a
    CPU, where XLA then repeats what comes before for every window.
    """
    per_window = -(-width // step)
    blocks = count + per_window - 1
    missing = max(0, blocks * step - x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, missing)) + ((0, 0),) * (x.ndim - 2))[:, : blocks * step]
    x = x.reshape(x.shape[0], blocks, step, *x.shape[2:])
    windows = jnp.concatenate([x[:, i : i + count] for i in range(per_window)], axis=2)
    return windows[:, :, :width]


@functools.cache
def _window(settings: Settings) -> np.ndarray:
    """Returns the periodic Hann window, in the middle of zeros: float32 [n_fft]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(settings.window) / settings.window)
    before = (settings.n_fft - settings.window) // 2
    after = settings.n_fft - settings.window - before
    return np.pad(hann, (before, after)).astype(np.float32)


@functools.cache
def _filters(settings: Settings) -> np.ndarray:
    return mel_filters(settings.bands, settings.n_fft, SAMPLE_RATE)
