"""`aver prepare synthetic`: the flags of the rendered corpus, and its summary line."""

import argparse
from pathlib import Path

from data_prep.errors import UserError
from data_prep.wording import counted

# OpenCV and PyAV are imported in run: --help is quick.
_CARRIERS = ("all", "eyes", "nose", "mouth", "eyes+nose", "eyes+mouth", "nose+mouth")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the rendered corpus."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to make (absent or empty)")
    add("--clips", type=int, default=480, help="number of clips (default: %(default)s)")
    add("--actors", type=int, default=20, help="number of actors (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of everything drawn (default: %(default)s)")
    add(
        "--naming",
        choices=("crema_d", "ravdess"),
        default="crema_d",
        help="file names and classes, 6 or 8 (default: %(default)s)",
    )
    add("--size", type=int, default=160, help="side of the frames in pixels (default: %(default)s)")
    add("--fps", type=int, default=25, help="frames per second (default: %(default)s)")
    add("--seconds", type=float, default=2.0, help="mean length of a clip (default: %(default)s)")
    add("--workers", type=int, default=None, help="processes (default: one per core)")
    add(
        "--fuzzy-face",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of clips, neutral ones apart, whose face is uninformative (default: 0)",
    )
    add(
        "--fuzzy-voice",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of clips, neutral ones apart, whose voice is uninformative (default: 0)",
    )
    add(
        "--conflict",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of clips, neutral ones apart, whose face and voice show different emotions; "
        "the stronger one, the face or the voice at random, is the label (default: 0)",
    )
    add(
        "--fuzzy-kind",
        choices=("neutral", "blend", "both"),
        default="both",
        help="what an uninformative face or voice shows: nothing, the label mixed with another "
        "emotion, or either at random (default: %(default)s)",
    )
    add(
        "--carrier",
        choices=_CARRIERS,
        default="all",
        help="parts of the face that show the label (default: %(default)s)",
    )
    add(
        "--span",
        type=_span,
        default=(0.0, 1.0),
        metavar="START:STOP",
        help="part of the clip in which the label shows, such as 0.5:1, or one share such as 0.4, "
        "placed at random (default: 0:1)",
    )
    add(
        "--vary",
        default="",
        metavar="NAME=AMOUNT,...",
        help="what varies beside the emotion, each at 1 or a share by default: resting, fidgets, "
        "talk, pose, glasses, beards, side_light, blur, compression, timing, intensity, habits, "
        "gain, noise, room (docs/synthetic.md); none turns all off, none,pose=1 all but one",
    )


def _span(text: str) -> tuple[float, float] | float:
    try:
        numbers = tuple(float(number) for number in text.split(":"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r}, expected START:STOP or one share")
    return numbers if len(numbers) == 2 else numbers[0]


def run(args: argparse.Namespace) -> int:
    """Renders the corpus and prints one line about it.

    Returns:
      0.

    Raises:
      UserError: the flags do not fit together, or `--out` holds files.
    """
    import time

    from tqdm import tqdm

    from data_prep.synthetic.corpus import render_corpus
    from data_prep.synthetic.plan import Knobs
    from data_prep.synthetic.variation import parse_variation

    if args.seed < 0:
        raise UserError(f"seed is {args.seed}, expected 0 or more")
    knobs = Knobs(
        args.fuzzy_face,
        args.fuzzy_voice,
        args.conflict,
        args.fuzzy_kind,
        args.carrier,
        args.span,
    )
    variation = parse_variation(args.vary)
    start = time.perf_counter()
    with tqdm(total=args.clips, unit="clip", desc="render", disable=None) as bar:
        render_corpus(
            args.out,
            args.clips,
            args.actors,
            args.seed,
            naming=args.naming,
            workers=args.workers,
            size=args.size,
            fps=args.fps,
            seconds=args.seconds,
            knobs=knobs,
            variation=variation,
            progress=bar.update,
        )
    seconds = time.perf_counter() - start
    rate = args.clips / seconds
    clips = counted(args.clips, "clip")
    print(f"rendered {clips} in {seconds:.1f} s ({rate:.1f} clips/s) to {args.out}")
    return 0
