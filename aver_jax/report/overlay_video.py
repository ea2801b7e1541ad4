"""A clip written again with the prediction beside it and its relevance over the face."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.report.overlay import draw_frame, heat_at, square_region
from aver_jax.runtime.atomic_files import whole
from data_prep import media


def overlay_frames(
    prediction: Any, classes: Sequence[str], margin: float, truth: str | None = None
) -> Iterator[np.ndarray]:
    """Yields every frame of the clip, uint8 [h, w, 3] RGB, drawn by `overlay.draw_frame`.

    Args:
      prediction: has `path`, `streams`, `record`, `probabilities`, `branches`, `window`, `target`,
        `maps`, `map_times` and `maps_peak`. Frames outside its window were not seen and have no
        heat map.
      classes: C names.
      margin: of the face crop (`preparation.json`).
      truth: the true class, if known.
    """
    clip = media.decode(
        prediction.path, True, False, streams=prediction.streams, keep_truncated=True
    )
    boxes = np.asarray(prediction.record["face_box"], np.float64)
    relevance = prediction.maps.sum(axis=(1, 2))
    moments = (prediction.map_times, relevance / max(relevance.max(), 1e-12))
    label = classes[int(prediction.probabilities.argmax())]
    explained = classes[prediction.target] if classes[prediction.target] != label else ""
    branch_predictions = [
        (f"{name} alone", classes[int(values.argmax())], values.max())
        for name, values in prediction.branches.items()
        # With one branch alone, its prediction is the model's.
        if len(prediction.branches) > 1
    ]
    start, stop = prediction.window
    # The record's clock, which the sound takes part in.
    times = prediction.record["timestamps"]
    window = (float(times[0]), float(times[-1]), start, stop)
    flat = "" if prediction.maps.max() > 0 else flat_words(prediction.maps_peak)
    for frame, box, time in zip(clip.frames, boxes, times, strict=True):
        yield draw_frame(
            frame,
            square_region(box, margin),
            heat_at(float(time), prediction.map_times, prediction.maps)
            if start <= time <= stop
            else None,
            label,
            classes,
            prediction.probabilities,
            truth=truth,
            time=float(time),
            moments=moments,
            branch_predictions=branch_predictions,
            window=window,
            scale=True,
            flat=flat,
            explained=explained,
        )


def flat_words(peak: float) -> str:
    """Returns the words for a map that is 0 everywhere once scaled, by its peak before."""
    return "no positive relevance" if peak <= 0 else "the same relevance everywhere"


def write_overlay(
    path: Path,
    prediction: Any,
    classes: Sequence[str],
    margin: float,
    truth: str | None = None,
    crf: int = 18,
) -> None:
    """Writes the overlay of one clip as MP4 with the clip's own times and sound.

    Args:
      path: file to write, `.mp4`.
      prediction: see `overlay_frames`; its sound is the record's `pcm`.
      classes: C names.
      margin: of the face crop.
      truth: the true class, if known.
      crf: H.264 quality, 0 (lossless) to 51.
    """
    timestamps = prediction.record["timestamps"]
    pcm = np.frombuffer(prediction.record["pcm"], "<i2")
    frames = len(timestamps)
    span = float(timestamps[-1] - timestamps[0]) if frames > 1 else 0.0
    fps = (frames - 1) / span if span > 0 else 25.0
    with whole(path) as temporary:
        media.write_clip(
            temporary,
            overlay_frames(prediction, classes, margin, truth),
            fps,
            pcm,
            media.SAMPLE_RATE,
            timestamps=timestamps,
            crf=crf,
        )
