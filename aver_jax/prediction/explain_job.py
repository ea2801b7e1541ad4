"""What predictions depend on: a gallery of each clip, frames in columns and methods in rows.

Writes OUT/index.html, one page that needs no other file, and beside it for every clip and class
OUT/CLIP/CLASS.png (the gallery) and OUT/CLIP/CLASS.mp4 (the first method over the face, with
sound).
"""

import argparse
import functools
import itertools
import sys
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.prediction.arguments import output_names
from aver_jax.prediction.job import predict_all
from aver_jax.prediction.prediction import Explained
from aver_jax.prediction.predictor import Predictor
from aver_jax.relevance import METHODS, knows_class, methods_of, paths_of
from aver_jax.report import prediction_table
from aver_jax.runs.run_folder import LoadedRun, load_run
from aver_jax.runtime.compilation_cache import use_compilation_cache
from data_prep.wording import counted, one_line

# Endings of the files of a clip and class.
ENDINGS = (".png", ".mp4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver explain`."""
    parser.add_argument(
        "run", type=Path, help="run folder, of aver train or tools/convert_checkpoint.py"
    )
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="media files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of what is written")
    parser.add_argument(
        "--methods",
        default="all",
        metavar="A,B",
        help="rows of the gallery, in this order; the video shows the first (default: all that "
        f"the model has). Known: {', '.join(METHODS)}",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="CLASS",
        help="explain this class too, beside the predicted one; several with commas between",
    )
    parser.add_argument(
        "--path",
        choices=("space_time", "spatial"),
        help="attentions that relevance goes through; for Grad-CAM, channel weights per clip "
        "(space_time) or per frame (spatial). Default: space_time where the model has it",
    )
    parser.add_argument("--checkpoint", default="best", help="best (default), last, or a step")


def run(args: argparse.Namespace) -> int:
    """Runs `aver explain`.

    Returns:
      0 when every clip was explained, 3 when some could not be used.

    Raises:
      UserError: a bad request, or no clip could be used.
    """
    clips = list(dict.fromkeys(args.clips))
    use_compilation_cache()
    loaded = load_run(args.run, args.checkpoint)
    methods, path = _methods(args, loaded), _path(args, loaded)
    targets = _targets(args, loaded)
    names = output_names(clips)
    _check_outputs(args.out, clips, names, loaded.classes)
    predictor = Predictor(loaded, path=path)
    failures: list[tuple[Path, str]] = []
    bar = tqdm(clips, unit=" clips", disable=len(clips) < 2 or not sys.stderr.isatty(), leave=False)
    explain = functools.partial(_explained, predictor, methods, targets)
    pages, predictions = [], []
    # Drawn as they come: the maps of many clips would not fit into memory.
    for found in predict_all(explain, bar, failures):
        prediction = found.prediction
        pages.append(_gallery().clip_section(args.out / names[prediction.path], found, loaded))
        predictions.append(prediction)
    for file, reason in failures:
        print(f"aver explain: {one_line(str(file))}: {reason}", file=sys.stderr)
    if not predictions:
        found = f"none of {counted(len(clips), 'clip')}"
        raise UserError(f"{found} could be explained; the reasons are above")
    print(prediction_table.table(predictions, loaded.classes))
    page = _gallery().write_page(args.out / "index.html", pages, args.run, loaded, methods, path)
    print(f"page: {page}")
    return 3 if failures else 0


def _explained(
    predictor: Predictor, methods: tuple[str, ...], targets: tuple[int, ...], file: Path
) -> list[Explained]:
    """Explains a clip, decoded once: the predicted class first, then those asked for."""
    clip = predictor.prepare(file)
    prediction, of_predicted = predictor.explain_clip(clip, [(m, None) for m in methods])
    predicted = int(prediction.probabilities.argmax())
    others = [target for target in targets if target != predicted]
    # What knows no class looks the same for every class: it is not asked again.
    specific = [m for m in methods if knows_class(m)]
    asked = list(itertools.product(specific, others)) if specific else []
    found = dict(zip(asked, predictor.explain_clip(clip, asked)[1], strict=True)) if asked else {}
    by_class = {predicted: dict(zip(methods, of_predicted, strict=True))}
    for target in others if specific else ():
        by_class[target] = {method: found[method, target] for method in specific}
    return [Explained(prediction, by_class)]


def _methods(args: argparse.Namespace, loaded: LoadedRun) -> tuple[str, ...]:
    offered = methods_of(loaded.model)
    if args.methods == "all":
        return offered
    wanted = tuple(dict.fromkeys(filter(None, args.methods.split(","))))
    if not wanted:
        raise UserError(
            f"--methods is {args.methods!r}; expected 'all' or names, as tibav,grad_cam"
        )
    for method in wanted:
        if method not in METHODS:
            raise UserError(f"--methods has {method!r}; expected of {', '.join(METHODS)}")
        if method not in offered:
            raise UserError(
                f"--methods {method} does not explain the {loaded.config.model.name} of "
                f"{args.run}; it offers {', '.join(offered)}"
            )
    return wanted


def _path(args: argparse.Namespace, loaded: LoadedRun) -> str:
    offered = paths_of(loaded.model)
    if args.path and args.path not in offered:
        raise UserError(
            f"--path {args.path} does not explain the {loaded.config.model.name} of {args.run}; "
            f"it offers {', '.join(offered)}"
        )
    return args.path or offered[0]


def _targets(args: argparse.Namespace, loaded: LoadedRun) -> tuple[int, ...]:
    classes = list(loaded.classes)
    wanted = [
        name for text in args.target for name in ([text] if text in classes else text.split(","))
    ]
    for name in wanted:
        if name not in classes:
            raise UserError(f"--target is {name!r}; expected one of {', '.join(classes)}")
    return tuple(dict.fromkeys(map(classes.index, wanted)))


def _check_outputs(out: Path, clips, names, classes) -> None:
    """Raises UserError if an output would replace one of the clips."""
    taken = {clip.resolve() for clip in clips}
    for name, label, ending in itertools.product(names.values(), classes, ENDINGS):
        if (file := (out / name / f"{label}{ending}").resolve()) in taken:
            raise UserError(
                f"{file} is one of the clips and would be replaced; choose another --out"
            )


def _gallery() -> ModuleType:
    from aver_jax.prediction import gallery_page  # matplotlib is slow to import

    return gallery_page
