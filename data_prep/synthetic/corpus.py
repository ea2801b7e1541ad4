"""A whole corpus rendered: media files, demographics and truth, written once and completely."""

import csv
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path

import av
import cv2
import numpy as np

from data_prep.errors import UserError
from data_prep.media import write_clip
from data_prep.output import check_parent, place, reported, start_partial
from data_prep.synthetic.clip import Clip, Format
from data_prep.synthetic.drawing.face import REGIONS
from data_prep.synthetic.identity import make_identity
from data_prep.synthetic.plan import ClipPlan, Knobs, demographics_row, plan_corpus
from data_prep.synthetic.sound.voice import SAMPLE_RATE
from data_prep.synthetic.truth import write_truth
from data_prep.synthetic.variation import Variation
from data_prep.synthetic.votes import simulated_votes, write_votes
from data_prep.workers import available_cores, interrupts_blocked, worker_pool


def render_corpus(
    out: str | Path,
    clips: int,
    actors: int,
    seed: int,
    naming: str = "crema_d",
    workers: int | None = None,
    size: int = 160,
    fps: int = 25,
    seconds: float = 2.0,
    knobs: Knobs | None = None,
    variation: Variation | None = None,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Renders talking faces and voices with known truth to media files (H.264 and AAC in MP4).

    The same arguments give the same pixels and samples, whatever the number of workers. `out`
    appears when all of it is written: `VideoMP4/1001_DFA_ANG_XX.mp4`,
    VideoDemographics.csv and simulated crowd votes in processedResults/summaryTable.csv
    (crema_d) or `Actor_01/01-01-05-01-02-01-01.mp4` (ravdess), and truth.csv and truth.npz.

    Args:
      out: folder to make; absent or empty.
      clips: number of clips, dealt evenly to actors and labels.
      actors: number of actors; odd ones are men.
      seed: of everything that is drawn.
      naming: "crema_d" (6 classes) or "ravdess" (8 classes).
      workers: processes; None takes one per available core, 1 renders in this process.
      size: side of the square frames in pixels, at least 96.
      fps: frames per second.
      seconds: mean length of a clip.
      knobs: what is unclear, and where the label shows.
      variation: what varies beside the label; default: all of it, as `Variation()`.
      progress: called with the number of clips done since the last call.

    Returns:
      `out`.

    Raises:
      UserError: `out` holds files or cannot be written, the arguments do not fit together, or a
        worker process died.
    """
    given, out = Path(out), place(out)
    knobs, variation = knobs or Knobs(), variation or Variation()
    _check(given, size, fps, seconds, workers)
    check_parent(out)
    plans = plan_corpus(clips, actors, seed, naming, knobs)
    part = start_partial(out)
    try:
        with reported(out):
            for folder in {Path(plan.file).parent for plan in plans}:
                (part / folder).mkdir(parents=True)
        render = functools.partial(
            _render_clip,
            folder=part,
            out=out,
            seed=seed,
            form=Format(size, fps, seconds),
            knobs=knobs,
            variation=variation,
        )
        rows, boxes = [], []
        with closing(_results(render, plans, workers or available_cores())) as results:
            for row, clip_boxes in results:
                rows.append(row)
                boxes.append(clip_boxes)
                if progress is not None:
                    progress(1)
        with reported(out):
            write_truth(part, rows, REGIONS, boxes)
            if naming == "crema_d":
                _write_demographics(part, plans, seed)
                write_votes(
                    part,
                    [
                        simulated_votes(row, {"face": plan.face, "voice": plan.voice}, seed)
                        for row, plan in zip(rows, plans, strict=True)
                    ],
                )
            if out.is_dir():
                out.rmdir()
            os.replace(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return given


def _check(out: Path, size: int, fps: int, seconds: float, workers: int | None) -> None:
    with reported(out):
        # lexists: a link that leads nowhere but to itself is in the way as well.
        taken = os.path.lexists(place(out)) and (not out.is_dir() or any(out.iterdir()))
    if taken:
        raise UserError(
            f"{out} exists and is not an empty folder, expected a new one; "
            "remove it or choose another --out"
        )
    if not 96 <= size <= 1080:
        raise UserError(f"size is {size}, expected 96 to 1080 pixels")
    if size % 2:
        raise UserError(f"size is {size}, expected an even number: video codecs need one")
    if not 5 <= fps <= 60:
        raise UserError(f"fps is {fps}, expected 5 to 60 frames per second")
    if not 1 <= seconds <= 10:
        raise UserError(f"seconds is {seconds:g}, expected 1 to 10")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}, expected at least 1")


def _render_clip(
    plan: ClipPlan,
    folder: Path,
    out: Path,
    seed: int,
    form: Format,
    knobs: Knobs,
    variation: Variation,
) -> tuple[dict, np.ndarray]:
    clip = Clip(plan, seed, form, knobs, variation)
    # Not all of FFmpeg's errors survive the way from a worker to its parent.
    with reported(out, av.FFmpegError):
        write_clip(folder / plan.file, clip.frames(), form.fps, clip.pcm, SAMPLE_RATE, crf=clip.crf)
    return clip.truth, clip.boxes


def _results(render, plans: list[ClipPlan], workers: int) -> Iterator[tuple[dict, np.ndarray]]:
    """Yields truth and boxes of every clip, in order."""
    workers = min(workers, len(plans))
    if workers == 1:
        with _one_opencv_thread():
            yield from map(render, plans)
        return
    try:
        with worker_pool(workers) as executor:
            with interrupts_blocked():
                results = executor.map(render, plans, chunksize=2)
            yield from results
    except BrokenProcessPool:
        raise UserError(
            "a worker process died (out of memory?), expected it to outlive its clips; "
            "free some memory or use fewer --workers"
        ) from None


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _write_demographics(folder: Path, plans: list[ClipPlan], seed: int) -> None:
    people = sorted({(plan.actor, plan.actor_name) for plan in plans})
    with open(folder / "VideoDemographics.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("ActorID", "Age", "Sex", "Race", "Ethnicity"))
        for actor, name in people:
            writer.writerow(demographics_row(actor, name, make_identity(seed, actor).age))
