"""What a person is like at rest: the face between expressions, and the habitual voice.

All of it is drawn without regard to the label: a part that belongs to the actor and one that
belongs to the take (a mood, a posture, a day). The resting face lies in the very directions in
which emotions move a face, so that a single picture cannot tell a sullen face from an angry one.
"""

from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.expression import EMOTIONS, UNITS
from data_prep.synthetic.sound.voice import Prosody
from data_prep.synthetic.variation import Variation

_PULLS = tuple(emotion for emotion in EMOTIONS if emotion != "NEU")
# Deviations of a resting face, in shares of a full expression, and of a voice at rest, each split
# between the actor and the take.
_PULL, _UNIT = 0.42, 0.14
_VOICE = {"pitch": 1.3, "energy": 1.8, "tilt": 2.4, "slope": 0.6, "rise": 0.4}
_VOICE_RATIOS = {"range": 0.13, "rate": 0.06}
_ACTORS_SHARE = 0.5  # of the variance


@dataclass(frozen=True)
class Rest:
    """One take at rest: action units (-0.4..0.75) and the voice, before any emotion."""

    units: dict[str, float]
    voice: Prosody


def make_rest(seed: int, actor: int, variation: Variation, take: np.random.Generator) -> Rest:
    """Returns how `actor` rests in one take.

    Args:
      seed: of the corpus.
      actor: number of the actor, from 1.
      variation: `resting` and `habits` are read.
      take: draws of this clip.
    """
    own = np.random.default_rng([seed, 5, actor])
    count = len(_PULLS) + len(UNITS) + len(_VOICE) + len(_VOICE_RATIOS) + 2
    drawn = np.clip(
        _ACTORS_SHARE**0.5 * own.normal(size=count)
        + (1 - _ACTORS_SHARE) ** 0.5 * take.normal(size=count),
        -2.2, 2.2,
    )  # fmt: skip
    pulls, drawn = drawn[: len(_PULLS)], drawn[len(_PULLS) :]
    single, drawn = drawn[: len(UNITS)], drawn[len(UNITS) :]
    units = dict(zip(UNITS, variation.resting * _UNIT * single, strict=True))
    for emotion, pull in zip(_PULLS, pulls, strict=True):
        for unit, amount in EMOTIONS[emotion].items():
            units[unit] += variation.resting * _PULL * pull * amount
    # A closed mouth does not close further, and no lid opens beyond its muscle.
    low = dict.fromkeys(UNITS, -0.4) | {"AU25": 0.0, "AU26": 0.0, "redness": 0.0, "AU43": -0.2}
    high = dict.fromkeys(UNITS, 0.75) | {"AU25": 0.35, "AU26": 0.25, "AU43": 0.6}
    units = {unit: float(np.clip(w, low[unit], high[unit])) for unit, w in units.items()}

    amount, names = variation.habits, (*_VOICE, *_VOICE_RATIOS)
    habit = dict(zip(names, drawn, strict=False))
    voice = {name: amount * _VOICE[name] * habit[name] for name in _VOICE}
    voice |= {name: float(np.exp(amount * _VOICE_RATIOS[name] * habit[name])) for name in
              _VOICE_RATIOS}  # fmt: skip
    plain = Prosody()
    voice["slope"] += plain.slope
    breath, attack = drawn[-2:]
    return Rest(
        units,
        Prosody(
            **voice,
            breath=amount * 0.025 * abs(float(breath)),
            attack=plain.attack + amount * 0.1 * float(attack),
        ),
    )
