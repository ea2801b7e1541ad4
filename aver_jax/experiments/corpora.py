"""Rendered corpora that differ in the share of unclear clips.

The same actors speak the same sentences with the same labels in all of them, and which clips are
unclear grows from corpus to corpus with the share. What else is drawn for a clip comes from its own
name (`data_prep.synthetic.plan`); clips that are clear in two corpora are the same in both. Each is
rendered to media files, with the default variation, and prepared by the ordinary job. A share holds
for the whole corpus: the clips of one fold's actors may have a little more or less.
"""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.audit.stored import read_audit
from aver_jax.errors import UserError
from aver_jax.experiments.pages.provenance import skipped_of, trivial_of
from aver_jax.input import open_dataset, split
from aver_jax.jobs import run_job
from aver_jax.runtime.atomic_files import write_whole
from data_prep.synthetic.plan import Knobs
from data_prep.synthetic.truth import read_truth
from data_prep.synthetic.variation import Variation

CLEAR = "clear"
CONDITIONS = (CLEAR, "fuzzy_face", "fuzzy_voice", "conflict")
PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Which corpus: its folder's name, and the shares of its clips (neutral ones apart)."""

    name: str
    fuzzy: float = 0.0
    conflict: float = 0.0

    @property
    def knobs(self) -> Knobs:
        """Half of the fuzzy clips are so in the face, half in the voice."""
        return Knobs(fuzzy_face=self.fuzzy / 2, fuzzy_voice=self.fuzzy / 2, conflict=self.conflict)


@dataclasses.dataclass(frozen=True)
class Rendering:
    """Settings that all corpora of a study share; `crop` is the side of the stored face crops."""

    clips: int
    actors: int
    size: int
    fps: int
    seconds: float
    crop: int
    seed: int


def plan_corpora(shares: Sequence[float], conflicts: Sequence[float]) -> list[Corpus]:
    """Returns one corpus per share of fuzzy clips and one per share of conflicting clips.

    A share of 0 of either is the same, clear corpus.
    """
    shares, conflicts = dict.fromkeys(shares), dict.fromkeys(conflicts)
    corpora = [Corpus(f"fuzzy{100 * share:g}", fuzzy=share) for share in shares if share]
    corpora += [Corpus(f"conflict{100 * share:g}", conflict=share) for share in conflicts if share]
    if 0 in {*shares, *conflicts}:
        corpora.insert(0, Corpus(CLEAR))
    return corpora


def make_corpus(corpus: Corpus, rendering: Rendering, folder: Path) -> Path:
    """Renders and prepares a corpus, or what is left to do of it.

    Args:
      corpus: which.
      rendering: how.
      folder: gets `settings.json`, `media` and `data`.

    Returns:
      The prepared dataset, `folder/data`.

    Raises:
      UserError: the folder holds a corpus of other settings, or these do not fit together.
    """
    from data_prep.output import is_dataset
    from data_prep.synthetic.corpus import render_corpus

    variation = Variation()
    settings: dict[str, Any] = {**dataclasses.asdict(rendering), **dataclasses.asdict(corpus.knobs)}
    settings["vary"] = dataclasses.asdict(variation)
    settings = json.loads(json.dumps(settings))
    stamp, media, data = folder / "settings.json", folder / "media", folder / "data"
    if stamp.exists() and json.loads(stamp.read_text()) != settings:
        raise UserError(
            f"{folder} holds a corpus of other settings ({stamp.name}); choose another --workdir"
        )
    if not stamp.exists() and (media.exists() or data.exists()):
        raise UserError(
            f"{folder} holds a corpus of unknown settings ({stamp.name} is missing); choose "
            "another --workdir"
        )
    if is_dataset(data):
        return data
    write_whole(stamp, json.dumps(settings, indent=1) + "\n")
    if not media.exists():
        render_corpus(
            media,
            rendering.clips,
            rendering.actors,
            rendering.seed,
            size=rendering.size,
            fps=rendering.fps,
            seconds=rendering.seconds,
            knobs=corpus.knobs,
            variation=variation,
        )
    words = ["--source", media, "--out", data, "--size", rendering.crop, "--margin", 1.0]
    # 3: some clips were skipped; their number is on the page.
    if run_job("prepare", ["crema_d", *map(str, words)]) not in (0, 3):
        raise UserError(f"{media} could not be prepared; the reasons are listed above")
    return data


def audit_corpus(data: Path, protocol: str, target: str) -> None:
    """Audits a corpus that has no audit yet: pages tell what trivial models reach on it.

    One that cannot be audited says why, and has none.
    """
    if read_audit(data, protocol, target) is not None:
        return
    try:
        run_job("audit", [str(data), "--protocol", protocol, "--target", target])
    except UserError as error:
        print(f"not audited: {error}", file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a prepared corpus holds.

    Attributes:
      prepared, skipped: numbers of clips.
      condition: clip id -> a key of `CONDITIONS`.
      parts: (fold, "train", "validation" or "test") -> condition -> number of clips.
      trivial: what the best trivial baseline reaches, in words (`provenance.trivial_of`).
    """

    prepared: int
    skipped: int
    condition: Mapping[str, str]
    parts: Mapping[tuple[int, str], Mapping[str, int]]
    trivial: str


def contents_of(data: Path, protocol: str, folds: Iterable[int], target: str) -> Contents:
    """Counts the clips of a prepared corpus, those of each part of each fold too."""
    dataset = open_dataset(data)
    condition = {row["clip_id"]: row["condition"] for row in read_truth(data).rows}
    own = np.array([condition[clip] for clip in dataset.index["clip_id"].tolist()])
    parts = {}
    for fold in folds:
        dealt = split(dataset, protocol, fold, target)
        for part in PARTS:
            found = own[getattr(dealt, part)]
            parts[fold, part] = {name: int((found == name).sum()) for name in CONDITIONS}
    trivial = trivial_of(data, protocol, target)
    return Contents(len(dataset), skipped_of(data), condition, parts, trivial)


def clear_in_all(contents: Mapping[str, Contents]) -> frozenset[str]:
    """Returns the clips that are clear in every corpus, however unclear the rest is."""
    clear = [{k for k, v in c.condition.items() if v == CLEAR} for c in contents.values()]
    return frozenset(set.intersection(*clear))
