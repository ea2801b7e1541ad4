"""The prediction job: emotions in media files, and pictures of what the model looked at."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from tqdm import tqdm

from aver_jax.errors import UnusableClip, UserError
from aver_jax.modality import Modality
from aver_jax.prediction.arguments import (
    add_arguments,
    check_arguments,
    check_outputs,
    method_and_path,
    output_names,
    target_of,
)
from aver_jax.prediction.outputs import note, tell_notes, write_files
from aver_jax.prediction.prediction import Clip, Prediction
from aver_jax.prediction.predictor import Predictor
from aver_jax.prediction.recording import predict_recording, unseen_stretches
from aver_jax.prediction.timeline import Timeline, gaps, timeline
from aver_jax.report import prediction_table
from aver_jax.runs.run_folder import load_run
from aver_jax.runtime.compilation_cache import use_compilation_cache
from data_prep.media import MAX_SECONDS, recording_seconds
from data_prep.wording import counted, one_line

# What a clip gives: its prediction, or that with more.
Found = TypeVar("Found")

__all__ = ["add_arguments", "predict_all", "run"]


def predict_all(
    predict: Callable[[Path], list[Found]],
    paths: Iterable[Path],
    failures: list[tuple[Path, str]],
) -> Iterator[Found]:
    """Yields what is predicted of the clips that can be used; lists the others with their reasons.

    One strange file must not cost the predictions for the others.
    """
    for path in paths:
        try:
            yield from predict(path)
        except UnusableClip as reason:
            failures.append((path, str(reason)))
        except (ValueError, ArithmeticError, LookupError, EOFError) as error:
            failures.append((path, f"{type(error).__name__}: {' '.join(str(error).split())}"))


@dataclasses.dataclass
class _Work:
    """What is done with each clip.

    Attributes:
      args: the flags.
      predictor: with the relevance that they ask for.
      names: of the files of each clip.
      uncovered: (clip, start, stop, why) of the seconds that no window of a timeline holds.
    """

    args: argparse.Namespace
    predictor: Predictor
    names: dict[Path, str]
    uncovered: list[tuple[Path, float, float, str]] = dataclasses.field(default_factory=list)

    def predict(self, file: Path) -> list[Prediction]:
        """Predicts a file, and writes its overlays and timeline."""
        args = self.args
        prefer = "largest" if args.faces == "largest" else "longest"
        if args.timeline and (seconds := recording_seconds(file)) > MAX_SECONDS:
            return [self._recording(file, seconds, prefer)]
        clips = self.predictor.prepare_faces(file, args.stream, prefer)
        if args.faces != "all" or len(clips) == 1:
            return [self._face(clips[0])]
        return [self._face(dataclasses.replace(clip, face=n)) for n, clip in enumerate(clips, 1)]

    def _face(self, clip: Clip) -> Prediction:
        name = self.names[clip.path] + (f"_face{clip.face}" if clip.face else "")
        prediction = self.predictor.predict_clip(clip)
        if self.args.overlay:
            _pictures().write_overlays(self.args.overlay, name, prediction, self.predictor.run)
        if self.args.timeline:
            line = timeline(self.predictor, clip, self.args.window, self.args.hop)
            unseen = unseen_stretches(clip)
            self._write(clip.path, name, line, clip.used, unseen, gaps(clip, line.regions))
        return prediction

    def _recording(self, file: Path, seconds: float, prefer: str) -> Prediction:
        args = self.args
        if args.overlay or args.faces == "all":
            flag = "--overlay" if args.overlay else "--faces all"
            raise UnusableClip(f"longer than {MAX_SECONDS:.0f} s; {flag} is for shorter clips")
        with tqdm(
            total=round(seconds), unit=" s", disable=not sys.stderr.isatty(), leave=False
        ) as bar:
            found = predict_recording(
                self.predictor,
                file,
                seconds,
                args.stream,
                prefer,
                args.window,
                args.hop,
                bar.update,
            )
        self._write(file, self.names[file], found.line, found.used, found.unseen, found.gaps)
        return found.prediction

    def _write(
        self,
        file: Path,
        name: str,
        line: Timeline,
        used: tuple[Modality, ...],
        unseen: list[tuple[float, float]],
        uncovered: list[tuple[float, float, str]],
    ) -> None:
        _pictures().write_timeline(
            self.args.timeline, name, line, self.predictor.run.classes,
            title=file.name, used=used, unseen=unseen, uncovered=uncovered,
        )  # fmt: skip
        self.uncovered.extend((file, *gap) for gap in uncovered)


def run(args: argparse.Namespace) -> int:
    """Runs `aver predict`.

    Returns:
      0 when every clip was predicted, 3 when some could not be used, 2 when none could.
    """
    check_arguments(args)
    use_compilation_cache()
    clips = list(dict.fromkeys(args.clips))
    names = output_names(clips)
    check_outputs(args, names)
    loaded = load_run(args.run, args.checkpoint)
    method, path = method_and_path(args, loaded)
    target = target_of(args, loaded)
    explained = args.overlay or args.relevance
    predictor = Predictor(loaded, args.temperature, method if explained else None, path, target)
    work = _Work(args, predictor, names)
    failures: list[tuple[Path, str]] = []
    bar = tqdm(clips, unit=" clips", disable=len(clips) < 2 or not sys.stderr.isatty(), leave=False)
    predictions = list(predict_all(work.predict, bar, failures))
    if predictions:
        print(prediction_table.table(predictions, loaded.classes))
        print(f"model: {args.run} (step {loaded.step}, trained under {loaded.protocol})")
        tell_notes(
            predictions, loaded.config.data.max_seconds, args.temperature, bool(args.timeline)
        )
        for file, start, stop, why in work.uncovered:
            note(
                f"{one_line(file.name)}: no window of the timeline from {start:.1f} to {stop:.1f} "
                f"s: {why}"
            )
        write_files(args, predictions, loaded, f"{method}, {path}")
    for file, reason in failures:
        print(f"aver predict: {one_line(str(file))}: {reason}", file=sys.stderr)
    if not predictions:
        found = f"none of {counted(len(clips), 'clip')}"
        raise UserError(f"{found} could be used; the reasons are above")
    return 3 if failures else 0


def _pictures() -> ModuleType:
    from aver_jax.prediction import pictures  # matplotlib is slow to import

    return pictures
