"""The prediction job: emotions in media files, and pictures of what the model looked at."""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from aver_jax.errors import UnusableClip, UserError
from aver_jax.modality import Modality
from aver_jax.prediction.prediction import Clip, Prediction
from aver_jax.prediction.predictor import Predictor
from aver_jax.prediction.recording import is_recording, predict_recording, unseen_stretches
from aver_jax.prediction.timeline import gaps, timeline
from aver_jax.relevance import METHODS, methods_of, paths_of
from aver_jax.report import prediction_table
from aver_jax.runs.run_folder import LoadedRun, load_run
from aver_jax.runtime.atomic_files import whole, write_whole
from aver_jax.runtime.compilation_cache import use_compilation_cache
from data_prep.cli import stream
from data_prep.media import MAX_SECONDS
from data_prep.wording import counted, one_line

# Endings of the files that `pictures` writes for a clip.
OVERLAYS = (".mp4", "_sound.png")
TIMELINES = (".png", ".csv")


def predict_all(
    predict: Callable[[Path], list[Prediction]],
    paths: Iterable[Path],
    failures: list[tuple[Path, str]],
) -> Iterator[Prediction]:
    """Yields the predictions of the clips that can be used; lists the others with their reasons.

    One strange file must not cost the predictions for the others.
    """
    for path in paths:
        try:
            yield from predict(path)
        except UnusableClip as reason:
            failures.append((path, str(reason)))
        except (ValueError, ArithmeticError, LookupError, EOFError) as error:
            failures.append((path, f"{type(error).__name__}: {' '.join(str(error).split())}"))


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns a name for each clip's files; clips of one name in two folders stay apart."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        names[path] = name
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver predict`."""
    parser.add_argument("run", type=Path, help="run folder, the --workdir of aver train")
    parser.add_argument(
        "clips",
        type=Path,
        nargs="+",
        help="media files; fusion networks except n0 accept audio-only or video-only files",
    )
    parser.add_argument("--checkpoint", default="best", help="best (default), last, or a step")
    parser.add_argument(
        "--faces",
        choices=("longest", "largest", "all"),
        default="longest",
        help="of several faces: the one that is there longest (default), the largest, or a row, "
        "timeline and overlay for each",
    )
    parser.add_argument(
        "--stream",
        type=stream,
        action="append",
        default=[],
        metavar="v:N|a:N",
        help="which picture or sound of a file with several, counted from 0 (default: the file's "
        "default one, else the largest picture, the first sound that is not silent)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="divides the logits, as fitted by aver evaluate --temperature (default: 1); "
        "probabilities of a single branch are not calibrated",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write the probabilities; per-branch ones (video_..., audio_...) are not calibrated",
    )
    parser.add_argument(
        "--features", type=Path, metavar="FILE.npz", help="write the classifier's inputs"
    )
    relevance = parser.add_argument_group("relevance: what the prediction depends on")
    relevance.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="write videos with a heat map over the face, and spectrograms with one over the audio",
    )
    relevance.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE.npz",
        help="write the maps: of video [n, T, h, w] with its frames, of audio [n, frequencies, "
        "times]. Each is scaled to 0..1; maps_peak and sound_peak [n] are the maxima before "
        "scaling, sound_padding [n] is the share that lies on the padding after the audio's end",
    )
    relevance.add_argument(
        "--method",
        choices=METHODS,
        help="default: tibav for a TimeSformer, grad_cam for networks with a ResNet",
    )
    relevance.add_argument(
        "--path",
        choices=("space_time", "spatial"),
        help="attentions that relevance goes through; for Grad-CAM, channel weights per clip "
        "(space_time) or per frame (spatial). Default: space_time where the model has it",
    )
    relevance.add_argument(
        "--target", metavar="CLASS", help="explain this class (default: the predicted one)"
    )
    over_time = parser.add_argument_group("over time, for clips and recordings of any length")
    over_time.add_argument(
        "--timeline",
        type=Path,
        metavar="DIR",
        help="slide a window over each clip; draw and write the probabilities of every window",
    )
    over_time.add_argument(
        "--window",
        type=_seconds,
        metavar="SECONDS",
        help="default: the shortest slice the model was trained on, min_slice (.5 unless set) of "
        "the clip or, if that is longer, of max_seconds (6)",
    )
    over_time.add_argument(
        "--hop",
        type=_seconds,
        metavar="SECONDS",
        help="from one window to the next (default: an eighth of the window)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs `aver predict`.

    Returns:
      0 when every clip was predicted, 3 when some could not be used, 2 when none could.
    """
    if not 0 < args.temperature < math.inf:
        raise UserError(f"--temperature is {args.temperature}, expected more than 0")
    if (args.window or args.hop) and not args.timeline:
        raise UserError("--window and --hop belong to --timeline DIR, which is not given")
    use_compilation_cache()
    clips = list(dict.fromkeys(args.clips))
    names = output_names(clips)
    _check_outputs(args, names)
    loaded = load_run(args.run, args.checkpoint)
    method, path = _method_and_path(args, loaded)
    explained = args.overlay or args.relevance
    if args.target and not explained:
        raise UserError("--target belongs to --overlay or --relevance, which are not given")
    if args.target and args.target not in loaded.classes:
        known = ", ".join(loaded.classes)
        raise UserError(f"--target is {args.target!r}; expected one of {known}")
    target = loaded.classes.index(args.target) if args.target else None
    predictor = Predictor(loaded, args.temperature, method if explained else None, path, target)
    failures: list[tuple[Path, str]] = []
    uncovered: list[tuple[Path, float, float, str]] = []

    def predict(file: Path) -> list[Prediction]:
        prefer = "largest" if args.faces == "largest" else "longest"
        if args.timeline and is_recording(file):
            return [predict_long(file, prefer)]
        clips = predictor.prepare_faces(file, args.stream, prefer)
        if args.faces != "all" or len(clips) == 1:
            return [predict_face(file, clips[0])]
        return [predict_face(file, replace(clip, face=n)) for n, clip in enumerate(clips, 1)]

    def predict_face(file: Path, clip: Clip) -> Prediction:
        name = names[file] + (f"_face{clip.face}" if clip.face else "")
        prediction = predictor.predict_clip(clip)
        if args.overlay:
            _pictures().write_overlays(args.overlay, name, prediction, loaded)
        if args.timeline:
            line = timeline(predictor, clip, args.window, args.hop)
            left_out = gaps(clip, line.regions)
            _pictures().write_timeline(
                args.timeline, name, line, loaded.classes,
                title=file.name, used=clip.used, unseen=unseen_stretches(clip), uncovered=left_out,
            )  # fmt: skip
            uncovered.extend((file, *gap) for gap in left_out)
        return prediction

    def predict_long(file: Path, prefer: str) -> Prediction:
        if args.overlay or args.faces == "all":
            flag = "--overlay" if args.overlay else "--faces all"
            raise UnusableClip(f"longer than {MAX_SECONDS:.0f} s; {flag} is for shorter clips")
        with tqdm(unit=" s", disable=not sys.stderr.isatty(), leave=False) as seconds:

            def tell(done: float, whole: float) -> None:
                seconds.total, seconds.n = round(whole), round(done)
                seconds.refresh()

            found = predict_recording(
                predictor, file, args.stream, prefer, args.window, args.hop, tell
            )
        _pictures().write_timeline(
            args.timeline, names[file], found.line, loaded.classes,
            title=file.name, used=found.used, unseen=found.unseen, uncovered=found.gaps,
        )  # fmt: skip
        uncovered.extend((file, *gap) for gap in found.gaps)
        return found.prediction

    bar = tqdm(clips, unit=" clips", disable=len(clips) < 2 or not sys.stderr.isatty(), leave=False)
    predictions = list(predict_all(predict, bar, failures))
    if predictions:
        print(prediction_table.table(predictions, loaded.classes))
        print(f"model: {args.run} (step {loaded.step}, trained under {loaded.protocol})")
        for prediction in predictions:
            for note in prediction.notes:
                _note(f"{prediction_table.name_of(prediction)}: {note}")
        _tell_what_is_cut(predictions, loaded.config.data.max_seconds, bool(args.timeline))
        _tell_what_is_uncalibrated(predictions, args.temperature)
        for file, start, stop, why in uncovered:
            _note(
                f"{one_line(file.name)}: no window of the timeline from {start:.1f} to {stop:.1f} "
                f"s: {why}"
            )
        _write_files(args, predictions, loaded, f"{method}, {path}")
    for file, reason in failures:
        print(f"aver predict: {one_line(str(file))}: {reason}", file=sys.stderr)
    if not predictions:
        found = f"none of {counted(len(clips), 'clip')}"
        raise UserError(f"{found} could be used; the reasons are above")
    return 3 if failures else 0


def _pictures() -> ModuleType:
    from aver_jax.prediction import pictures  # matplotlib is slow to import

    return pictures


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
        _note(
            f"{prediction_table.name_of(p)}: predicted from {start:.1f} to {stop:.1f} s of "
            f"{p.whole[1]:.1f} s, where its {face_or_sound} is"
        )
    if cut:
        _note(
            f"{counted(len(cut), 'clip')} {'is' if len(cut) == 1 else 'are'} longer than "
            f"{max_seconds:g} s: predicted from their middle {max_seconds:g} s"
            + ("" if slid else "; --timeline DIR covers the whole clip")
        )


def _tell_what_is_uncalibrated(predictions: Sequence[Prediction], temperature: float) -> None:
    alone = sum(bool(p.missing) for p in predictions)
    if alone and temperature != 1:
        _note(
            f"{counted(alone, 'clip')} predicted by one branch alone; the temperature "
            f"{temperature:g} is fitted to video and audio together, and not applied there"
        )


def _note(text: str) -> None:
    print(f"aver predict: note: {text}", file=sys.stderr)


def _write_files(
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


def _method_and_path(args: argparse.Namespace, loaded: LoadedRun) -> tuple[str, str]:
    """Returns the relevance method and path; UserError where the model does not have them."""
    chosen = []
    for flag, offered in (
        ("method", methods_of(loaded.model)),
        ("path", paths_of(loaded.model)),
    ):
        value = getattr(args, flag)
        if value is not None and value not in offered:
            raise UserError(
                f"--{flag} {value} does not explain the {loaded.config.model.name} of {args.run}; "
                f"it offers {', '.join(offered)}"
            )
        chosen.append(value or offered[0])
    return chosen[0], chosen[1]


def _check_outputs(args: argparse.Namespace, names: dict[Path, str]) -> None:
    """Raises UserError if an output would replace one of the clips, or another output."""
    clips = {path.resolve() for path in args.clips}
    outputs = [path for path in (args.csv, args.features, args.relevance) if path]
    for folder, endings in (
        (args.overlay, OVERLAYS),
        (args.timeline, TIMELINES),
    ):
        if folder:
            outputs += [folder / f"{name}{ending}" for name in names.values() for ending in endings]
    taken = set()
    for path in outputs:
        if path.resolve() in clips:
            raise UserError(f"{path} is one of the clips and would be replaced; write elsewhere")
        if path.resolve() in taken:
            raise UserError(f"{path} would be written twice; give every output its own place")
        taken.add(path.resolve())


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds more than 0")
    return value
