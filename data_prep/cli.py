"""`aver prepare`: a folder of clips in, a prepared dataset out."""

import argparse
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

from data_prep.errors import UserError
from data_prep.wording import counted, one_line

# Heavy imports (OpenCV, PyAV, TFDS) are made where they are used: --help is quick.

_CORPORA = {
    "crema_d": "CREMA-D's official layout (VideoFlash, or MP4/AVI with its file names)",
    "ravdess": "RAVDESS' official file names (audio-video speech)",
    "folder": "your own clips, labelled by a CSV file",
}
_LISTED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the corpora of `aver prepare` and their flags."""
    corpora = parser.add_subparsers(dest="corpus", required=True, metavar="CORPUS")
    for name, text in _CORPORA.items():
        corpus = corpora.add_parser(name, help=text, description=text)
        corpus.add_argument("--source", type=Path, required=True, help="folder with the clips")
        if name == "folder":
            text = "CSV: file,label[,actor]; file is relative to --source"
            corpus.add_argument("--labels", type=Path, required=True, help=text)
        corpus.add_argument("--out", type=Path, required=True, help="dataset folder to make")
        corpus.add_argument("--overwrite", action="store_true", help="replace a dataset at --out")
        text = "processes (default: one per core)"
        corpus.add_argument("--workers", type=_at_least(1), default=None, help=text)
        text = "face detector (default: haar)"
        corpus.add_argument("--detector", choices=("haar", "mtcnn"), default="haar", help=text)
        text = "side of the stored face crops in pixels (default: 224)"
        corpus.add_argument("--size", type=_at_least(16), default=224, help=text)
        text = "side of the crop over that of the face (default: 1.3)"
        corpus.add_argument("--margin", type=_margin, default=1.3, help=text)
        text = "also take what can be decoded of files that are cut off"
        corpus.add_argument("--keep-truncated", action="store_true", help=text)
        text = "which streams of the files, such as v:1 or a:0 (default: the default ones)"
        corpus.add_argument("--stream", type=stream, action="append", default=[], help=text)
    from data_prep.synthetic import cli as synthetic

    text = "render the synthetic corpus: talking faces and voices as media files"
    synthetic.add_arguments(corpora.add_parser("synthetic", help=text, description=text))


def run(args: argparse.Namespace) -> int:
    """Prepares a corpus and prints what came of it.

    Returns:
      0 when every clip was prepared, 3 when some were skipped, 2 when nothing could be done.

    Raises:
      UserError: the source, the output or the detector cannot be used.
    """
    # A job that is asked to end cleans up as after Ctrl-C.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if args.corpus == "synthetic":
            from data_prep.synthetic import cli as synthetic

            return synthetic.run(args)
        return _prepare(args)
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare(args: argparse.Namespace) -> int:
    from data_prep.clip import Preparation
    from data_prep.corpora import crema_d, folder, ravdess
    from data_prep.corpora.corpus import truth_files, without_lfs_pointers
    from data_prep.dataset import write_dataset
    from data_prep.output import check_apart, check_out

    check_apart(args.out, [args.source, *([args.labels] if args.corpus == "folder" else [])])
    check_out(args.out, args.overwrite)
    if args.corpus == "folder":
        corpus = folder.read_corpus(args.source, args.labels)
    else:
        reader = {"crema_d": crema_d, "ravdess": ravdess}[args.corpus]
        corpus = reader.read_corpus(args.source)
    without_lfs_pointers(corpus, args.source)
    truth = truth_files(args.source)
    for note in () if truth else corpus.notes:
        print(f"note: {note}")
    summary = write_dataset(
        args.out,
        "synthetic" if truth else corpus.name,
        corpus.classes,
        [
            replace(job, streams=tuple(args.stream), keep_truncated=args.keep_truncated)
            for job in corpus.jobs
        ],
        Preparation(detector=args.detector, margin=args.margin, size=args.size),
        workers=args.workers,
        source=args.source,
        skipped=corpus.skipped,
        excluded=corpus.excluded,
        extra_files=truth,
        overwrite=args.overwrite,
    )
    _report(summary, corpus.excluded)
    if not summary.prepared:
        tried = len(summary.skipped)
        found = f"none of {tried} clips under {args.source} could be prepared"
        if tried == 1:
            found = f"the only clip under {args.source} could not be prepared"
        if not tried:
            left_out = counted(summary.excluded, "file")
            found = f"no clips to prepare under {args.source}, {left_out} left out"
        raise UserError(f"{found}; expected at least one; the reasons are listed above")
    return 3 if summary.skipped else 0


def _report(summary, excluded: list[tuple[str, str]]) -> None:
    rate = summary.prepared / summary.seconds
    clips = counted(summary.prepared, "clip")
    print(f"prepared {clips} in {summary.seconds:.1f} s ({rate:.1f} clips/s)")
    for (found, sampled), clips in sorted(summary.faces.items(), reverse=True):
        print(f"  face found in {found} of {sampled} sampled frames: {counted(clips, 'clip')}")
    for note, files in sorted(summary.notes.items(), key=lambda pair: -len(pair[1]))[:_LISTED]:
        print(f"note: {counted(len(files), 'clip')}, such as {one_line(files[0])}: {note}")
    if summary.excluded:
        print(f"left out on purpose: {counted(summary.excluded, 'file')}")
    # Without a dataset there is no skipped.csv to look the others up in.
    shown = _LISTED if summary.prepared else len(summary.skipped)
    for file, reason in () if summary.prepared else excluded:
        print(f"  {one_line(file)}: {one_line(reason)}")
    if summary.skipped:
        print(f"skipped {counted(len(summary.skipped), 'clip')}:")
        for file, reason in summary.skipped[:shown]:
            print(f"  {one_line(file)}: {one_line(reason)}")
        rest = Counter(reason for _, reason in summary.skipped[shown:])
        for reason, clips in rest.most_common():
            print(f"  and {clips} more: {one_line(reason)}")
    if summary.out is not None:
        print(f"dataset: {summary.out}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _at_least(least: int):
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def stream(text: str) -> str:
    """Parses "v:1" or "a:0" of --stream."""
    kind, _, number = text.partition(":")
    if kind not in ("v", "a") or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is none; expected such as v:0 or a:1")
    return text


def _margin(text: str) -> float:
    value = float(text)
    if not 1.0 <= value <= 4.0:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and 4")
    return value
