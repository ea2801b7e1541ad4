"""The flags of `aver predict`, and what is wrong with them before any clip is read."""

import argparse
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

from aver_jax.errors import UserError
from aver_jax.prediction.outputs import OVERLAYS, TIMELINES
from aver_jax.relevance import METHODS, methods_of, paths_of
from aver_jax.runs.run_folder import LoadedRun
from data_prep.cli import stream


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
    _add_relevance_arguments(parser.add_argument_group("relevance: what the prediction depends on"))
    _add_timeline_arguments(
        parser.add_argument_group("over time, for clips and recordings of any length")
    )


def _add_relevance_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="write videos with a heat map over the face, and spectrograms with one over the audio",
    )
    group.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE.npz",
        help="write the maps: of video [n, T, h, w] with its frames, of audio [n, frequencies, "
        "times]. Each is scaled to 0..1; maps_peak and sound_peak [n] are the maxima before "
        "scaling, sound_padding [n] is the share that lies on the padding after the audio's end",
    )
    group.add_argument(
        "--method",
        choices=METHODS,
        help="default: tibav for a TimeSformer, grad_cam for networks with a ResNet",
    )
    group.add_argument(
        "--path",
        choices=("space_time", "spatial"),
        help="attentions that relevance goes through; for Grad-CAM, channel weights per clip "
        "(space_time) or per frame (spatial). Default: space_time where the model has it",
    )
    group.add_argument(
        "--target", metavar="CLASS", help="explain this class (default: the predicted one)"
    )


def _add_timeline_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--timeline",
        type=Path,
        metavar="DIR",
        help="slide a window over each clip; draw and write the probabilities of every window",
    )
    group.add_argument(
        "--window",
        type=_seconds,
        metavar="SECONDS",
        help="default: the shortest slice the model was trained on, min_slice (.5 unless set) of "
        "the clip or, if that is longer, of max_seconds (6)",
    )
    group.add_argument(
        "--hop",
        type=_seconds,
        metavar="SECONDS",
        help="from one window to the next (default: an eighth of the window)",
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for flags that are wrong whatever the run is."""
    if not 0 < args.temperature < math.inf:
        raise UserError(f"--temperature is {args.temperature}, expected more than 0")
    if (args.window or args.hop) and not args.timeline:
        raise UserError("--window and --hop belong to --timeline DIR, which is not given")


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


def check_outputs(args: argparse.Namespace, names: dict[Path, str]) -> None:
    """Raises UserError if an output would replace one of the clips, or another output."""
    clips = {path.resolve() for path in args.clips}
    outputs = [path for path in (args.csv, args.features, args.relevance) if path]
    for folder, endings in (
        (args.overlay, OVERLAYS),
        (args.timeline, TIMELINES),
    ):
        if folder:
            outputs += [folder / f"{name}{ending}" for name in names.values() for ending in endings]
    if args.faces == "all":
        outputs += _of_faces(args, names, clips)
    taken = set()
    for path in outputs:
        if path.resolve() in clips:
            raise UserError(f"{path} is one of the clips and would be replaced; write elsewhere")
        if path.resolve() in taken:
            raise UserError(f"{path} would be written twice; give every output its own place")
        taken.add(path.resolve())


def _of_faces(args: argparse.Namespace, names: dict[Path, str], clips: set[Path]) -> list[Path]:
    """Returns outputs for single faces that bear the name of a clip, or of another clip's files.

    How many faces a clip has is not known before it is read.
    """
    face = re.compile(rf"({'|'.join(map(re.escape, names.values()))})_face\d+")
    found = []
    for folder, endings in ((args.overlay, OVERLAYS), (args.timeline, TIMELINES)):
        stems = [name for name in names.values() if face.fullmatch(name)] if folder else []
        found += [folder / f"{stem}{ending}" for stem in stems for ending in endings]
        for clip, ending in itertools.product(clips if folder else (), endings):
            inside = clip.parent == folder.resolve() and clip.name.endswith(ending)
            if inside and face.fullmatch(clip.name.removesuffix(ending)):
                found.append(clip)
    return found


def method_and_path(args: argparse.Namespace, loaded: LoadedRun) -> tuple[str, str]:
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


def target_of(args: argparse.Namespace, loaded: LoadedRun) -> int | None:
    """Returns the index of the class to explain, None for the predicted one."""
    if not args.target:
        return None
    if not (args.overlay or args.relevance):
        raise UserError("--target belongs to --overlay or --relevance, which are not given")
    if args.target not in loaded.classes:
        known = ", ".join(loaded.classes)
        raise UserError(f"--target is {args.target!r}; expected one of {known}")
    return loaded.classes.index(args.target)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds more than 0")
    return value
