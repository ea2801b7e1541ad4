"""From integers to a model's inputs on the device: standardised frames, spectrogram segments."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Mean and standard deviation of R, G, B on a 0..1 scale.
CHANNEL_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "timesformer": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
}


def normalized(frames: Tensor, normalization: str) -> Tensor:
    """Returns uint8 frames [B, T, H, W, 3] standardised, float32.

    Args:
      frames: RGB.
      normalization: "per_clip", mean and std (at least 1 grey level) of each colour over the
        clip; or a key of `CHANNEL_STATISTICS`.
    """
    x = frames.float()
    if normalization == "per_clip":
        variance, mean = torch.var_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
        return (x - mean) * variance.sqrt().clamp_(min=1).reciprocal_()
    mean, std = (x.new_tensor(v) for v in CHANNEL_STATISTICS[normalization])
    # One multiply and one add: (x / 255 - mean) / std.
    return torch.addcmul(-mean / std, x, 1 / (255 * std))


def segment_counts(settings: Mapping[str, Any], samples: Any) -> Any:
    """Returns the segments of that many samples: an int, or an int numpy array."""
    beyond = samples // settings["hop"] - settings["segment"]
    beyond = beyond * (beyond > 0)
    return (1 + -(-beyond // _step(settings))) * (samples > 0)


def spectrogram(settings: Mapping[str, Any], audio: Tensor, length: Tensor) -> Tensor:
    """Returns standardised spectrograms float32 [B, F, 1 + S // hop], 0 past each clip's end.

    Args:
      settings: `frontend.spectrogram` of an aver_jax config, without mel bands.
      audio: int16 [B, S], zeros from each clip's `length` on.
      length: int [B], samples.

    Raises:
      ValueError: mel bands or an unknown scale.
    """
    if settings["bands"] or settings["scale"] not in ("log1p", "db"):
        raise ValueError(
            f"spectrogram of {settings['bands']} bands and scale {settings['scale']!r}; the "
            "baseline has all frequencies (bands 0) and log1p or db"
        )
    inside = torch.arange(audio.shape[1], device=audio.device) < length[:, None]
    samples = audio.float().mul_(1 / 32_768).mul_(inside)
    spectrum = torch.stft(
        samples,
        n_fft=settings["n_fft"],
        hop_length=settings["hop"],
        win_length=settings["window"],
        window=torch.hann_window(settings["window"], device=audio.device),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    # abs() guards against overflow, and takes twice as long.
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    magnitudes = torch.addcmul(real * real, imaginary, imaginary).sqrt_()
    if settings["scale"] == "log1p":
        values = magnitudes.log1p_()
    else:
        values = magnitudes.clamp_(min=1e-5).log10_().mul_(20)
    values = values.sub_(settings["mean"]).mul_(1 / settings["deviation"])
    frames = (1 + length // settings["hop"]) * (length > 0)
    inside = torch.arange(values.shape[2], device=audio.device) < frames[:, None]
    return values.mul_(inside[:, None])


def segments(settings: Mapping[str, Any], audio: Tensor, length: Tensor) -> Tensor:
    """Returns all segments, padding included, as a view float32 [B, N, F, W] of the spectrograms.

    N is what the longest clip of the buffer needs. Arguments as of `spectrogram`.
    """
    values = spectrogram(settings, audio, length)
    count = int(segment_counts(settings, audio.shape[1]))
    step, width = _step(settings), settings["segment"]
    missing = (count - 1) * step + width - values.shape[2]
    if missing > 0:
        values = torch.nn.functional.pad(values, (0, missing))
    return values.unfold(2, width, step)[:, :, :count].transpose(1, 2)


def packed_segments(
    settings: Mapping[str, Any], audio: Tensor, length: Tensor, index: Tensor
) -> Tensor:
    """Returns the segments b * N + n of `index` [P], float32 [P, 1, F, W]."""
    found = segments(settings, audio, length)
    clip, segment = index // found.shape[1], index % found.shape[1]
    return found[clip, segment][:, None]


def _step(settings: Mapping[str, Any]) -> int:
    return max(1, round(settings["segment"] * (1 - settings["overlap"])))
