"""Which clips a corpus has: names, balanced labels, and what the face and the voice will show."""

import itertools
from dataclasses import dataclass

import numpy as np

from data_prep.errors import UserError
from data_prep.synthetic.expression import CARRIERS
from data_prep.synthetic.identity import sex_of
from data_prep.wording import counted

CREMA_D_CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
RAVDESS_CLASSES = ("NEU", "CAL", "HAP", "SAD", "ANG", "FEA", "DIS", "SUR")
NAMINGS = {"crema_d": CREMA_D_CLASSES, "ravdess": RAVDESS_CLASSES}
_SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
# How much of the full expression each level shows.
STRENGTH = {"LO": 0.74, "MD": 0.87, "HI": 1.0, "XX": 0.94, "01": 0.82, "02": 1.0}
_LEVELS = ("XX", "MD", "HI", "LO")
_MOST_ACTORS = {"crema_d": 91, "ravdess": 24}
_OTHER_STRENGTH = 0.6  # of the modality that speaks against the label


@dataclass(frozen=True)
class Knobs:
    """What is unclear in the corpus, and where the label shows.

    The shares are of the clips of every label but NEU: a face or a voice that shows nothing shows
    neutral, so that a neutral clip is always clear, and never the other emotion of an unclear one.

    Attributes:
      fuzzy_face: share of clips whose face is uninformative (the label is in the voice alone).
      fuzzy_voice: share of clips whose voice is uninformative.
      conflict: share of clips whose face and voice show different emotions; the label is that of
        the stronger one, which is the face or the voice with equal chances.
      fuzzy_kind: what an uninformative modality shows: "neutral" (missing information), "blend"
        (the label and another emotion in equal parts), or "both" (either, with equal chances).
      carrier: facial parts that show the label, a key of `expression.CARRIERS`.
      span: part of the clip in which the label shows: (start, stop) as shares of the clip, or a
        single share, placed at random. A voice shows it in the speech within that part; where
        there is too little, in the part of the speech next to it.
    """

    fuzzy_face: float = 0.0
    fuzzy_voice: float = 0.0
    conflict: float = 0.0
    fuzzy_kind: str = "both"
    carrier: str = "all"
    span: tuple[float, float] | float = (0.0, 1.0)

    def __post_init__(self):
        """Refuses what cannot be rendered."""
        shares = {
            "fuzzy-face": self.fuzzy_face,
            "fuzzy-voice": self.fuzzy_voice,
            "conflict": self.conflict,
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise UserError(f"{name} is {share}, expected a share from 0 to 1")
        if sum(shares.values()) > 1 + 1e-9:
            raise UserError(
                f"fuzzy-face, fuzzy-voice and conflict add up to {sum(shares.values()):g}, "
                "expected at most 1: no clip may be unclear in two ways"
            )
        if self.fuzzy_kind not in ("neutral", "blend", "both"):
            raise UserError(f"fuzzy-kind is {self.fuzzy_kind!r}, expected neutral, blend or both")
        if self.carrier not in CARRIERS:
            raise UserError(f"carrier is {self.carrier!r}, expected one of {', '.join(CARRIERS)}")
        if isinstance(self.span, tuple):
            start, stop = self.span
            good = 0 <= start < stop <= 1 and stop - start >= 0.2 - 1e-9  # 1 - 0.8 < 0.2
        else:
            good = 0.2 <= self.span <= 1
        if not good:
            raise UserError(
                f"span is {self.span}, expected START:STOP within 0:1, or one share; "
                "at least 0.2 of the clip"
            )


@dataclass(frozen=True)
class ClipPlan:
    """One clip to render. `face` and `voice`: emotion -> strength shown (empty is neutral);
    `carriers`: the modalities that show the label; `seed`: all that is drawn for the clip."""

    clip_id: str
    file: str
    actor: int
    actor_name: str
    label: str
    level: str
    sentence: str
    condition: str  # clear, fuzzy_face, fuzzy_voice, conflict
    face: dict[str, float]
    voice: dict[str, float]
    carriers: tuple[str, ...]
    seed: tuple[int, ...]


def plan_corpus(
    clips: int, actors: int, seed: int, naming: str = "crema_d", knobs: Knobs | None = None
) -> list[ClipPlan]:
    """Returns all clips of a corpus, in order of their names.

    Clips are dealt evenly to the actors and to the labels of each actor (neutral has a single
    intensity in RAVDESS, so that it has at most 4 clips an actor there). Where they do not divide
    by the labels, a man and the woman after him have the same labels once more, so that the sex
    tells no label. An unclear condition takes the same share of every label but NEU.

    Raises:
      UserError: more clips than unique names, or more actors than the naming has.
    """
    knobs = knobs or Knobs()
    _check_counts(clips, actors, naming)
    classes = NAMINGS[naming]
    plans = []
    first = 0
    for index in range(actors):
        count = clips // actors + (index < clips % actors)
        plans += _actor_clips(index + 1, count, seed, naming, first % len(classes))
        if sex_of(index + 1) == "Female":  # each pair deals on where the one before it ended
            first += clips // actors + (index - 1 < clips % actors)
    plans.sort(key=lambda plan: plan[0])
    conditions = _conditions([plan[2] for plan in plans], classes, knobs, seed)
    return [
        _shown(plan, condition, classes, knobs, seed)
        for plan, condition in zip(plans, conditions, strict=True)
    ]


def _check_counts(clips: int, actors: int, naming: str) -> None:
    if naming not in NAMINGS:
        raise UserError(f"naming is {naming!r}, expected one of {', '.join(NAMINGS)}")
    if not 1 <= actors <= _MOST_ACTORS[naming]:
        raise UserError(
            f"{actors} actors, expected 1 to {_MOST_ACTORS[naming]} with {naming} names"
        )
    per_actor = len(_names(naming))
    if not actors <= clips <= per_actor * actors:
        raise UserError(
            f"{counted(clips, 'clip')} for {counted(actors, 'actor')}, expected "
            f"{actors} to {per_actor * actors} "
            f"(1 to {per_actor} unique {naming} names an actor); change --clips or --actors"
        )


def _names(naming: str) -> list[tuple[str, str, str, str]]:
    """Returns every (label, level, sentence, repetition) an actor can have."""
    if naming == "crema_d":
        return list(itertools.product(CREMA_D_CLASSES, _LEVELS, _SENTENCES, [""]))
    every = itertools.product(RAVDESS_CLASSES, ("01", "02"), ("01", "02"), ("01", "02"))
    return [name for name in every if name[:2] != ("NEU", "02")]


def _actor_clips(
    actor: int, count: int, seed: int, naming: str, first_label: int
) -> list[tuple[str, str, str, str, str, int, str]]:
    """Returns (clip_id, file, label, level, sentence, actor, actor's name) of one actor."""
    rng = np.random.default_rng([seed, 2, actor])
    classes = NAMINGS[naming]
    names: dict[str, list] = {label: [] for label in classes}
    for label, level, sentence, take in _names(naming):
        names[label].append((level, sentence, take))
    for label, options in names.items():
        drawn = [options[i] for i in rng.permutation(len(options))]
        # Neutral has no level, and keeps its official XX while sentences last.
        if naming == "crema_d" and label == "NEU":
            drawn.sort(key=lambda option: option[0] != "XX")
        else:  # levels by turns, so that few clips hold all of them
            turns = [sum(o[0] == d[0] for o in drawn[:i]) for i, d in enumerate(drawn)]
            drawn = [drawn[i] for i in np.argsort(turns, kind="stable")]
        names[label] = drawn
    taken = []
    turns = itertools.cycle(np.roll(classes, -first_label).tolist())
    while len(taken) < count:
        label = next(turns)
        if names[label]:
            taken.append((label, *names[label].pop(0)))
    clips = []
    for label, level, sentence, take in taken:
        if naming == "crema_d":
            name = str(1000 + actor)
            clip_id = f"{name}_{sentence}_{label}_{level}"
            file = f"VideoMP4/{clip_id}.mp4"
        else:
            name = f"{actor:02d}"
            clip_id = f"01-01-{classes.index(label) + 1:02d}-{level}-{sentence}-{take}-{name}"
            file = f"Actor_{name}/{clip_id}.mp4"
        clips.append((clip_id, file, label, level, sentence, actor, name))
    return clips


def _conditions(labels: list[str], classes, knobs: Knobs, seed: int) -> list[str]:
    """Returns the condition of every clip: each label but NEU has its share of each."""
    rng = np.random.default_rng([seed, 3])
    conditions = ["clear"] * len(labels)
    for label in classes:
        if label == "NEU":
            continue
        mine = rng.permutation([i for i, other in enumerate(labels) if other == label])
        edges = np.cumsum([0, knobs.fuzzy_face, knobs.fuzzy_voice, knobs.conflict])
        edges = np.rint(edges * len(mine)).astype(int)
        for name, a, b in zip(
            ("fuzzy_face", "fuzzy_voice", "conflict"), edges[:-1], edges[1:], strict=True
        ):
            for i in mine[a:b]:
                conditions[i] = name
    return conditions


def _shown(plan, condition: str, classes, knobs: Knobs, seed: int) -> ClipPlan:
    clip_id, file, label, level, sentence, actor, name = plan
    # The clip's own seed is its name, so that other clips of the corpus do not change it. The name
    # holds the label: no two clips share their draws, but no rule that makes them reads the label.
    own = (seed, 4, *clip_id.encode())
    rng = np.random.default_rng(own)
    other = str(rng.choice([c for c in classes if c not in (label, "NEU")]))
    coin = bool(rng.integers(2))
    strength = STRENGTH[level]
    clear = {} if label == "NEU" else {label: strength}
    blend = dict.fromkeys((label, other), 0.5 * strength)
    if knobs.fuzzy_kind == "neutral" or (knobs.fuzzy_kind == "both" and coin):
        blend = {}
    against = {other: _OTHER_STRENGTH * strength}
    face, voice, carriers = clear, clear, ("face", "voice")
    if condition == "fuzzy_face":
        face, carriers = blend, ("voice",)
    elif condition == "fuzzy_voice":
        voice, carriers = blend, ("face",)
    elif condition == "conflict" and coin:
        voice, carriers = against, ("face",)
    elif condition == "conflict":
        face, carriers = against, ("voice",)
    return ClipPlan(
        clip_id, file, actor, name, label, level, sentence, condition, face, voice, carriers, own
    )


def shown_emotion(shown: dict[str, float]) -> str:
    """Returns what a modality shows, in words: "HAP", "NEU", or a tie "ANG:SAD" for a blend."""
    return ":".join(sorted(shown)) or "NEU"


def demographics_row(actor: int, name: str, age: int) -> tuple:
    """Returns a row of CREMA-D's VideoDemographics.csv; a drawn person has no race."""
    return name, age, sex_of(actor), "Unknown", "Unknown"
