"""The prediction job: emotions in media files, and pictures of what the model looked at."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from aver_jax.errors import UnusableClip, UserError
from aver_jax.files import csv_text, whole, write_whole
from aver_jax.frontend import evaluation_inputs
from aver_jax.input.clips import ClipShape, clip_arrays, clip_window
from aver_jax.input.sampling import view_slices
from aver_jax.relevance import METHODS, explain
from aver_jax.report.overlay_video import write_overlay
from aver_jax.runs import LoadedRun, load_run
from data_prep.clip import Job, Preparation, prepare_clip, sampled_faces
from data_prep.wording import counted, one_line

# Which modality of a prepared clip a model's input needs.
_NEEDS = {"frames": "video", "audio": "audio"}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says about one clip.

    Attributes:
      path: the media file.
      probabilities: float32 [C].
      features: float32 [D], the input of the classifier.
      record: the prepared clip without its images, see `data_prep.clip.prepare_clip`.
      frames: uint8 [T, H, W, 3] RGB, the crops the model saw.
      frame_times: float32 [T], their seconds in the clip.
      maps: float32 [T, h, w] relevance of the predicted class in 0..1, or None if not asked for.
    """

    path: Path
    probabilities: np.ndarray
    features: np.ndarray
    record: dict[str, Any]
    frames: np.ndarray
    frame_times: np.ndarray
    maps: np.ndarray | None


class Predictor:
    """A run's model applied to media files, prepared as its training data were.

    Args:
      run: an open run folder.
      temperature: divides the logits; `aver evaluate --temperature` fits it.
      method: relevance method, or None to explain nothing.
      path: relevance path, "space_time" or "spatial".
    """

    def __init__(
        self,
        run: LoadedRun,
        temperature: float = 1.0,
        method: str | None = None,
        path: str = "space_time",
    ):
        self._run, self._temperature = run, temperature
        self._method, self._path = method, path
        self._preparation = Preparation.from_json(run.preparation)
        data = run.config.data
        self._shape = ClipShape(
            data.num_frames, data.image_size, data.max_seconds, tuple(run.modalities)
        )
        self._views = view_slices(run.config.evaluation.views)

        def forward(variables, batch):
            logits, taps = run.model.apply(variables, evaluation_inputs(run.config, batch))
            return logits, taps["features"]

        self._forward = jax.jit(forward)
        self._inputs = jax.jit(lambda batch: evaluation_inputs(run.config, batch))

    def predict(self, path: Path) -> Prediction:
        """Predicts one clip; several views of it are averaged as in evaluation.

        Raises:
          UnusableClip: its text says why.
        """
        require = [_NEEDS[modality] for modality in self._run.modalities]
        record = prepare_clip(Job(path, clip_id=path.stem), self._preparation, require)
        views = len(self._views)
        batch = clip_arrays([record] * views, self._views, self._shape)
        logits, features = self._forward(self._run.variables, batch)
        # As in evaluation: the views' probabilities are averaged, then the temperature applies.
        averaged = jax.nn.softmax(logits).mean(axis=0)
        probabilities = jax.nn.softmax(jnp.log(averaged) / self._temperature)

        whole = clip_arrays([record], [(0.0, 1.0)], self._shape) if views > 1 else batch
        maps = None
        if self._method:
            maps = explain(
                self._run.model,
                self._run.variables,
                self._inputs(whole),
                method=self._method,
                path=self._path,
                target=int(probabilities.argmax()),
            ).maps[0]
        return Prediction(
            path=path,
            probabilities=np.asarray(probabilities),
            features=np.asarray(features.mean(axis=0)),
            record={name: value for name, value in record.items() if name != "frames"},
            frames=whole["frames"][0],
            frame_times=whole["frame_times"][0] + clip_window(record, self._shape.max_seconds)[0],
            maps=None if maps is None else np.asarray(maps),
        )


def predict_all(
    predict: Callable[[Path], Prediction],
    paths: Iterable[Path],
    failures: list[tuple[Path, str]],
) -> Iterator[Prediction]:
    """Yields the predictions of the clips that can be used; lists the others with their reasons.

    One strange file must not cost the answers for the others.
    """
    for path in paths:
        try:
            yield predict(path)
        except UnusableClip as reason:
            failures.append((path, str(reason)))
        except (ValueError, ArithmeticError, LookupError, EOFError) as error:
            failures.append((path, f"{type(error).__name__}: {' '.join(str(error).split())}"))


def table(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """Returns the class probabilities as text, a line per clip, the highest marked by a star."""
    names = [one_line(p.path.name) for p in predictions]
    width = max(map(len, ["clip", *names]))
    columns = [max(6, len(name) + 1) for name in classes]
    head = " ".join(f"{name:>{w}}" for name, w in zip(classes, columns, strict=True))
    lines = [f"{'clip':<{width}}  {'predicted':<9} {head}  face found in"]
    for name, p in zip(names, predictions, strict=True):
        best = int(p.probabilities.argmax())
        cells = " ".join(
            f"{value:{w - 1}.3f}{'*' if i == best else ' '}"
            for i, (value, w) in enumerate(zip(p.probabilities, columns, strict=True))
        )
        found, sampled = sampled_faces(p.record)
        lines.append(f"{name:<{width}}  {classes[best]:<9} {cells}  {found} of {sampled} frames")
    return "\n".join(lines)


def probabilities_csv(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """Returns the predictions as CSV: file, prediction, one probability per class."""
    rows: list[Sequence[object]] = [("file", "prediction", *classes)]
    for p in predictions:
        best = classes[int(p.probabilities.argmax())]
        rows.append((str(p.path), best, *map(float, p.probabilities)))
    return csv_text(rows)


def _write_arrays(path: Path, predictions: Sequence[Prediction], **arrays: Any) -> None:
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, clips=np.array([str(p.path) for p in predictions]), **arrays)


def overlay_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns a file name for each clip's overlay; clips of one name in two folders stay apart."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        names[path] = f"{name}.mp4"
    return names


def _check_outputs(args: argparse.Namespace, names: dict[Path, str]) -> None:
    """Raises UserError if an output would replace one of the clips."""
    clips = {path.resolve() for path in args.clips}
    outputs = [path for path in (args.csv, args.features, args.relevance) if path]
    if args.overlay:
        outputs += [args.overlay / name for name in names.values()]
    for path in outputs:
        if path.resolve() in clips:
            raise UserError(f"{path} is one of the clips and would be replaced; write elsewhere")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver predict`."""
    parser.add_argument("run", type=Path, help="run folder, the --workdir of aver train")
    parser.add_argument("clips", type=Path, nargs="+", help="media files with a face")
    parser.add_argument("--checkpoint", default="best", help="best (default), last, or a step")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the probabilities")
    parser.add_argument(
        "--features", type=Path, metavar="FILE.npz", help="write the classifier's inputs"
    )
    parser.add_argument(
        "--overlay", type=Path, metavar="DIR", help="write videos with a heat map over the face"
    )
    parser.add_argument(
        "--relevance",
        type=Path,
        metavar="FILE.npz",
        help="write the relevance maps [n, T, h, w] and the frames they belong to",
    )
    parser.add_argument(
        "--method", choices=METHODS, default="tibav", help="relevance method (default: tibav)"
    )
    parser.add_argument(
        "--path",
        choices=("space_time", "spatial"),
        default=None,
        help="attentions the relevance goes through (default: space_time where the model has it)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="divides the logits, as fitted by aver evaluate --temperature (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs `aver predict`.

    Returns:
      0 when every clip was predicted, 3 when some could not be used, 2 when none could.
    """
    if not 0 < args.temperature < math.inf:
        raise UserError(f"--temperature is {args.temperature}, expected more than 0")
    names = overlay_names(list(dict.fromkeys(args.clips)))
    _check_outputs(args, names)
    loaded = load_run(args.run, args.checkpoint)
    path = args.path or _default_path(loaded)
    explained = args.overlay or args.relevance
    predictor = Predictor(loaded, args.temperature, args.method if explained else None, path)
    failures: list[tuple[Path, str]] = []

    def predict(clip: Path) -> Prediction:
        prediction = predictor.predict(clip)
        if args.overlay:
            margin = loaded.preparation["margin"]
            write_overlay(args.overlay / names[clip], prediction, loaded.classes, margin)
        return prediction

    clips = list(dict.fromkeys(args.clips))
    bar = tqdm(clips, unit=" clips", disable=len(clips) < 2 or not sys.stderr.isatty(), leave=False)
    predictions = list(predict_all(predict, bar, failures))
    if predictions:
        print(table(predictions, loaded.classes))
        print(f"model: {args.run} (step {loaded.step}, trained under {loaded.protocol})")
    if predictions and args.csv:
        write_whole(args.csv, probabilities_csv(predictions, loaded.classes))
        print(f"probabilities: {args.csv}")
    if predictions and args.features:
        _write_arrays(
            args.features,
            predictions,
            features=np.stack([p.features for p in predictions]),
            probabilities=np.stack([p.probabilities for p in predictions]),
            classes=np.array(loaded.classes),
        )
        print(f"features: {args.features}")
    if predictions and args.relevance:
        _write_arrays(
            args.relevance,
            predictions,
            maps=np.stack([p.maps for p in predictions]),
            frames=np.stack([p.frames for p in predictions]),
            frame_times=np.stack([p.frame_times for p in predictions]),
            target=np.array([int(p.probabilities.argmax()) for p in predictions]),
        )
        print(f"relevance ({args.method}, {path}): {args.relevance}")
    if predictions and args.overlay:
        print(f"overlays ({args.method}, {path}): {args.overlay}")
    for file, reason in failures:
        print(f"aver predict: {one_line(str(file))}: {reason}", file=sys.stderr)
    if not predictions:
        found = f"none of {counted(len(clips), 'clip')}"
        raise UserError(f"{found} could be used; the reasons are above")
    return 3 if failures else 0


def _default_path(run: LoadedRun) -> str:
    return "spatial" if run.config.model.get("attention") == "space_only" else "space_time"
