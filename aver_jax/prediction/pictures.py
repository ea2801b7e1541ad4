"""The pictures of one clip's prediction: overlays of its relevance, and its timeline."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from aver_jax.frontend.feature_grid import enlarged
from aver_jax.frontend.spectrogram import checked_settings
from aver_jax.input.clips import SAMPLE_RATE
from aver_jax.modality import Modality
from aver_jax.prediction.outputs import OVERLAYS, TIMELINES
from aver_jax.prediction.prediction import Prediction
from aver_jax.prediction.timeline import Timeline, averaged, timeline_csv, words_of
from aver_jax.report import figures
from aver_jax.report.figures import Figure
from aver_jax.report.overlay_video import flat_words, write_overlay
from aver_jax.report.spectrogram import sound_figure
from aver_jax.report.timeline import Stretch, timeline_figure
from aver_jax.runs.run_folder import LoadedRun
from aver_jax.runtime.atomic_files import write_whole
from data_prep.wording import one_line

# A line through more points is a blot.
MOST_DRAWN = 400
# Places on a side of a map of pixels, as it is drawn.
PIXEL_GRID = 16


def write_overlays(
    folder: Path, name: str, prediction: Prediction, run: LoadedRun, sound: bool = True
) -> None:
    """Writes NAME.mp4, the face with its relevance, and NAME_sound.png; each if there is one.

    Args:
      folder: made if need be.
      name: of the files.
      prediction: with relevance.
      run: whose model it is.
      sound: whether the picture of the sound is wanted.
    """
    if prediction.maps is not None:
        margin = run.preparation["margin"]
        write_overlay(folder / f"{name}{OVERLAYS[0]}", shown(prediction, run), run.classes, margin)
    if sound and prediction.audio_map is not None:
        title = _title(prediction.path, prediction.probabilities, run.classes)
        figure = sound_picture(prediction, run, title)
        write_whole(folder / f"{name}{OVERLAYS[1]}", figures.png(figure))


def shown(prediction: Prediction, run: LoadedRun) -> Prediction:
    """Returns a prediction with maps for pictures: over the face evenly, coarse enough to see."""
    maps, sides = prediction.maps, prediction.frames.shape[1:3]
    if maps is not None and maps.shape[1:] == sides:
        # Single pixels are too small for the eye: their means over a grid, scaled again.
        places = tuple(min(side, PIXEL_GRID) for side in sides[::-1])
        maps = np.stack([cv2.resize(m, places, interpolation=cv2.INTER_AREA) for m in maps])
        maps /= max(float(maps.max()), 1e-12)
    elif maps is not None and not run.model.has_attention:
        # Patches cover the face evenly; the places of a ResNet's maps lie elsewhere.
        maps = enlarged(maps, *sides)
    return dataclasses.replace(prediction, maps=maps)


def sound_picture(prediction: Prediction, run: LoadedRun, title: str) -> Figure:
    """Draws the relevance of a prediction's sound over its spectrogram.

    Args:
      prediction: with an audio map.
      run: whose model it is.
      title: above the figure.
    """
    settings = checked_settings(run.config.frontend.spectrogram)
    found = prediction.audio_map
    start = round(float(found.times[0]) * SAMPLE_RATE)
    pcm = np.frombuffer(prediction.record["pcm"], "<i2")
    return sound_figure(
        pcm[start : start + (len(found.times) - 1) * settings.hop],
        SAMPLE_RATE,
        title,
        found.values,
        found.times,
        found.frequencies,
        settings.n_fft,
        mel=settings.bands > 0,
        notes=_sound_notes(prediction, run.classes),
        flat=flat_words(found.peak),
    )


def write_timeline(
    folder: Path,
    name: str,
    line: Timeline,
    classes: Sequence[str],
    *,
    title: str,
    used: Sequence[Modality],
    unseen: Sequence[tuple[float, float]],
    uncovered: Sequence[tuple[float, float, str]],
) -> None:
    """Writes NAME.png and NAME.csv.

    Args:
      folder: made if need be.
      name: of the files.
      line: the windows and what was predicted for them.
      classes: C names.
      title: above the figure.
      used: modalities of the clip.
      unseen: (start, stop), seconds in which no face was found.
      uncovered: (start, stop, why), seconds without a window.
    """
    drawn, each = averaged(line, MOST_DRAWN)
    figure = timeline_figure(
        drawn.spans,
        drawn.probabilities,
        classes,
        drawn.branches,
        one_line(title) + (f" (each point: the mean of {each} windows)" if each > 1 else ""),
        unseen if Modality.VIDEO in used else [],
        runs=[i for i in range(1, len(drawn.used)) if drawn.used[i] != drawn.used[i - 1]],
        alone=[
            Stretch(part.start, part.stop, f"{words_of(part.used)} alone")
            for part in line.regions
            if len(part.used) < len(used)
        ],
        uncovered=[Stretch(*gap) for gap in uncovered],
    )
    write_whole(folder / f"{name}{TIMELINES[0]}", figures.png(figure))
    write_whole(folder / f"{name}{TIMELINES[1]}", timeline_csv(line, classes))


def _sound_notes(prediction: Prediction, classes: Sequence[str]) -> list[str]:
    notes = []
    if prediction.target != int(prediction.probabilities.argmax()):
        notes.append(f"relevance of {classes[prediction.target]}")
    (start, stop), (first, last) = prediction.window, prediction.whole
    if last - first - (stop - start) > 0.05:
        notes.append(f"used: {start:.1f} to {stop:.1f} s of {last:.1f} s")
    if prediction.audio_map.padding > 0.05:
        share = 100 * prediction.audio_map.padding
        notes.append(f"{share:.0f}% of the relevance lies on the silence after the end, not drawn")
    return notes


def _title(path: Path, probabilities: np.ndarray, classes: Sequence[str]) -> str:
    best = int(probabilities.argmax())
    return f"{one_line(path.name)}: predicted {classes[best]} ({100 * probabilities[best]:.0f}%)"
