"""Rendered corpora whose label lies in one known place, and a small TimeSformer trained on each."""

import dataclasses
import json
from pathlib import Path

from aver_jax.errors import UserError
from aver_jax.jobs import run_job
from aver_jax.runtime.atomic_files import write_whole


@dataclasses.dataclass(frozen=True)
class KnownCorpus:
    """Which part of the face, or of the clip, shows the label.

    Attributes:
      carrier: as of `aver prepare synthetic --carrier`.
      span: as of --span; the part of the clip in which the face leaves its rest.
      region: facial part that is the truth; "" where the truth is the span.
    """

    carrier: str = "all"
    span: tuple[float, float] = (0.0, 1.0)
    region: str = ""

    @property
    def where(self) -> str:
        """The place, in words."""
        return self.region or ("first half" if self.span[0] == 0 else "second half")


CORPORA = {
    "mouth": KnownCorpus(carrier="mouth", region="mouth"),
    "eyes": KnownCorpus(carrier="eyes", region="eyes"),
    "early": KnownCorpus(span=(0.0, 0.5)),
    "late": KnownCorpus(span=(0.5, 1.0)),
}
# Nothing varies but who it is, the light, the words, and when the expression comes: a model that
# errs says little about methods.
VARY = "none,timing=1"


def trained_on(name: str, folder: Path, clips: int, actors: int, epochs: int) -> tuple[Path, Path]:
    """Renders, prepares and trains, or what is left of it; returns the dataset and the run.

    Args:
      name: one of `CORPORA`.
      folder: gets `settings.json`, `media`, `data`, `run`.
      clips, actors: of the corpus.
      epochs: of the training.

    Raises:
      UserError: the folder holds a corpus of other settings, or a step failed.
    """
    corpus, stamp = CORPORA[name], folder / "settings.json"
    settings = {"clips": clips, "actors": actors, "epochs": epochs, "vary": VARY}
    settings |= {"carrier": corpus.carrier, "span": list(corpus.span)}
    if stamp.exists() and json.loads(stamp.read_text()) != settings:
        raise UserError(f"{folder} was made with other settings; choose another --out")
    write_whole(stamp, json.dumps(settings, indent=1) + "\n")
    media, data, run = folder / "media", folder / "data", folder / "run"
    done = folder / "trained"
    if not media.exists():
        span = f"{corpus.span[0]:g}:{corpus.span[1]:g}"
        words = ["--clips", clips, "--actors", actors, "--fps", 10, "--seconds", 1.2, "--size", 112]
        words += ["--carrier", corpus.carrier, "--span", span, "--vary", VARY]
        _step("prepare", "synthetic", "--out", media, *words)
    if not data.exists():
        words = ("--source", media, "--out", data, "--size", 64, "--margin", 1.0)
        _step("prepare", "crema_d", *words)
    if not done.exists():
        words = (f"--config.data.path={data}", f"--config.epochs={epochs:.1f}")
        words += (f"--config.evaluation.every_epochs={max(1.0, epochs / 3):.1f}",)
        _step("train", "--config", "timesformer.py:size=demo", *words, "--workdir", run)
        write_whole(done, "")
    return data, run


def _step(job: str, *words: object) -> None:
    # 3: some clips were skipped.
    if run_job(job, list(map(str, words))) not in (0, 3):
        raise UserError(f"aver {job} {' '.join(map(str, words))} failed; see above")
