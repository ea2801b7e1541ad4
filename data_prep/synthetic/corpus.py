"""A whole corpus rendered: media files, demographics and truth, written once and completely."""

import csv
import functools
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from data_prep.errors import UserError
from data_prep.media import write_clip
from data_prep.synthetic.clip import Clip, Format
from data_prep.synthetic.face import REGIONS
from data_prep.synthetic.identity import make_identity
from data_prep.synthetic.plan import ClipPlan, Knobs, demographics_row, plan_corpus
from data_prep.synthetic.truth import write_truth
from data_prep.synthetic.voice import SAMPLE_RATE


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
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Render talking faces and voices with known truth to media files (H.264 and AAC in MP4).

    The same arguments give the same pixels and samples, whatever the number of workers. `out`
    appears when all of it is written: `VideoMP4/1001_DFA_ANG_XX.mp4` and VideoDemographics.csv
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
      progress: called with the number of clips done since the last call.

    Returns:
      `out`.

    Raises:
      UserError: `out` holds files, or the arguments do not fit together.
    """
    out = Path(out)
    knobs = knobs or Knobs()
    _check(out, size, fps, seconds, workers)
    plans = plan_corpus(clips, actors, seed, naming, knobs)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        for folder in {Path(plan.file).parent for plan in plans}:
            (part / folder).mkdir(parents=True)
        render = functools.partial(
            _render_clip, folder=part, seed=seed, form=Format(size, fps, seconds), knobs=knobs
        )
        rows, boxes = [], []
        for row, clip_boxes in _results(render, plans, workers or _cores()):
            rows.append(row)
            boxes.append(clip_boxes)
            if progress is not None:
                progress(1)
        write_truth(part, rows, REGIONS, boxes)
        if naming == "crema_d":
            _write_demographics(part, plans, seed)
        part.chmod(0o777 & ~_umask())
        if out.is_dir():
            out.rmdir()
        os.replace(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out


def _check(out: Path, size: int, fps: int, seconds: float, workers: int | None) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
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
    plan: ClipPlan, folder: Path, seed: int, form: Format, knobs: Knobs
) -> tuple[dict, np.ndarray]:
    clip = Clip(plan, seed, form, knobs)
    write_clip(folder / plan.file, clip.frames(), form.fps, clip.pcm, SAMPLE_RATE)
    return clip.truth, clip.boxes


def _results(render, plans: list[ClipPlan], workers: int) -> Iterator[tuple[dict, np.ndarray]]:
    """Truth and boxes of every clip, in order."""
    workers = min(workers, len(plans))
    if workers == 1:
        with _one_opencv_thread():
            yield from map(render, plans)
        return
    # A forked child would inherit the threads and locks of whatever runs here.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from executor.map(render, plans, chunksize=2)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
