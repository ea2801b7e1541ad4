"""What `aver predict` writes and tells, once its clips are predicted."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.modality import Modality
from aver_jax.prediction.prediction import Prediction
from aver_jax.report import prediction_table
from aver_jax.runs.run_folder import LoadedRun
from aver_jax.runtime.atomic_files import whole, write_whole
from data_prep.wording import counted

# Endings of the files that `pictures` writes for a clip.
OVERLAYS = (".mp4", "_sound.png")
TIMELINES = (".png", ".csv")


def tell_notes(
    predictions: Sequence[Prediction], max_seconds: float, temperature: float, slid: bool
) -> None:
    """Prints what a person should know of the predictions.

    Args:
      predictions: of the clips.
      max_seconds: that the model sees at a time.
      temperature: that was asked for.
      slid: whether there is a timeline.
    """
    for prediction in predictions:
        for text in prediction.notes:
            note(f"{prediction_table.name_of(prediction)}: {text}")
    _tell_what_is_cut(predictions, max_seconds, slid)
    _tell_what_is_uncalibrated(predictions, temperature)


def _tell_what_is_cut(predictions: Sequence[Prediction], max_seconds: float, slid: bool) -> None:
    """Prints notes on clips of which only a part was used."""
    cut = []
    for p in predictions:
        (start, stop), whole = p.window, p.whole[1] - p.whole[0]
        if stop - start > whole - 0.05:
            continue
        if abs(start + stop - sum(p.whole)) < 0.1:
            cut.append(p)
            continue
        face_or_sound = "face" if Modality.VIDEO in p.used else "sound"
        note(
            f"{prediction_table.name_of(p)}: predicted from {start:.1f} to {stop:.1f} s of "
            f"{p.whole[1]:.1f} s, where its {face_or_sound} is"
        )
    if cut:
        note(
            f"{counted(len(cut), 'clip')} {'is' if len(cut) == 1 else 'are'} longer than "
            f"{max_seconds:g} s: predicted from their middle {max_seconds:g} s"
            + ("" if slid else "; --timeline DIR covers the whole clip")
        )


def _tell_what_is_uncalibrated(predictions: Sequence[Prediction], temperature: float) -> None:
    alone = sum(bool(p.missing) for p in predictions)
    if alone and temperature != 1:
        note(
            f"{counted(alone, 'clip')} predicted by one branch alone; the temperature "
            f"{temperature:g} is fitted to video and audio together, and not applied there"
        )


def note(text: str) -> None:
    """Prints a note to standard error."""
    print(f"aver predict: note: {text}", file=sys.stderr)


def write_files(
    args: argparse.Namespace, predictions: Sequence[Prediction], loaded: LoadedRun, how: str
) -> None:
    """Writes what was asked for and says where it is."""
    if args.csv:
        write_whole(args.csv, prediction_table.probabilities_csv(predictions, loaded.classes))
        print(f"probabilities: {args.csv}")
    clips = np.array([str(p.path) for p in predictions])
    if args.features:
        names = {name for p in predictions for name in p.features}
        _write_arrays(
            args.features,
            clips=clips,
            probabilities=np.stack([p.probabilities for p in predictions]),
            classes=np.array(loaded.classes),
            **{name: _stacked([p.features.get(name) for p in predictions]) for name in names},
        )
        print(f"features: {args.features}")
    if args.relevance:
        target = np.array([p.target for p in predictions])
        _write_arrays(args.relevance, clips=clips, target=target, **_relevance(predictions))
        print(f"relevance ({how}): {args.relevance}")
    if args.overlay:
        print(f"overlays ({how}): {args.overlay}")
    if args.timeline:
        print(f"timelines: {args.timeline}")


def _relevance(predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    if any(p.maps is not None for p in predictions):
        seen = [p if p.maps is not None else None for p in predictions]
        for name in ("maps", "map_times", "frames", "frame_times"):
            arrays[name] = _stacked([p and getattr(p, name) for p in seen])
        arrays["maps_peak"] = np.float32([p.maps_peak for p in predictions])
    sounds = [p.audio_map for p in predictions]
    if heard := [sound for sound in sounds if sound is not None]:
        arrays["sound_maps"] = _stacked([s and s.values for s in sounds])
        arrays["sound_times"] = _stacked([s and s.times for s in sounds])
        arrays["sound_frequencies"] = heard[0].frequencies
        arrays["sound_peak"] = np.float32([s.peak if s else np.nan for s in sounds])
        arrays["sound_padding"] = np.float32([s.padding if s else np.nan for s in sounds])
    return arrays


def _stacked(parts: Sequence[np.ndarray | None]) -> np.ndarray:
    """Stacks arrays of one rank, filled up with NaN (integers: 0) where there is nothing."""
    known = [part for part in parts if part is not None]
    shape = np.max([part.shape for part in known], axis=0)
    fill = np.nan if np.issubdtype(known[0].dtype, np.floating) else 0
    stack = np.full((len(parts), *shape), fill, known[0].dtype)
    for place, part in enumerate(parts):
        if part is not None:
            stack[(place, *(slice(n) for n in part.shape))] = part
    return stack


def _write_arrays(path: Path, **arrays: Any) -> None:
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
