"""What makes a rendered corpus hard: everything that varies and is not the emotion."""

from dataclasses import dataclass, fields, replace

from data_prep.errors import UserError


@dataclass(frozen=True)
class Variation:
    """How much varies beside the label; docs/synthetic.md says how each default was set.

    An amount of 0 turns its subject off, but for a rest that the field names; 1 is the default
    corpus. Shares are of the actors (glasses, beards) or of the clips. No field changes with the
    label.

    Attributes:
      resting: how far resting faces differ, between actors and between takes of one actor, along
        the directions in which emotions move a face; 1: about as far as an expression of medium
        strength.
      fidgets: brief movements of the face that mean nothing.
      talk: how much further than plainly speech opens the mouth; 1: by 10 to 70%, 0: plainly.
      pose: how far the head moves, turns, nods and tilts; 0 leaves its distance.
      glasses: share of actors who wear them.
      beards: share of men with a full beard.
      side_light: share of clips lit from a side.
      blur: share of clips out of focus.
      compression: share of clips that were compressed hard.
      timing: how much the onset and the length of the expression vary; 0: it fills its span.
      intensity: how much further LO, MD and HI are apart, and how unevenly face and voice take
        part; 0 leaves the levels' own strengths.
      habits: how far the habitual pitch, loudness, tempo and timbre of speakers differ.
      gain: how far the level of the recording differs; 1: a deviation of 11 dB, 0: up to 1 dB.
      noise: background noise; 0: that of a quiet room.
      room: reverberation, and the colour of the microphone.
    """

    resting: float = 1.0
    fidgets: float = 1.0
    talk: float = 1.0
    pose: float = 1.0
    glasses: float = 0.25
    beards: float = 0.25
    side_light: float = 0.3
    blur: float = 0.3
    compression: float = 0.3
    timing: float = 1.0
    intensity: float = 1.0
    habits: float = 1.0
    gain: float = 1.0
    noise: float = 1.0
    room: float = 1.0

    def __post_init__(self):
        """Refuses what cannot be rendered."""
        for name in NAMES:
            most = 1 if name in SHARES else _MOST.get(name, 3)
            value = getattr(self, name)
            if not 0 <= value <= most:
                kind = "a share" if name in SHARES else "an amount"
                raise UserError(f"vary {name} is {value:g}, expected {kind} from 0 to {most}")


NAMES = tuple(field.name for field in fields(Variation))
SHARES = ("glasses", "beards", "side_light", "blur", "compression")
# No window is shorter than timing 1 draws it. With more intensity the modality against the label,
# planned at 0.6 of its strength, could become the stronger one (above 1.4, with a lively actor).
_MOST = {"timing": 1, "intensity": 1.25}
NONE = Variation(**dict.fromkeys(NAMES, 0.0))


def parse_variation(text: str) -> Variation:
    """Returns the variation of a flag: "none", or changes such as "resting=0.5,glasses=0".

    "none" may come first: "none,pose=1" turns everything off but the pose.

    Raises:
      UserError: an unknown name, or an amount out of range.
    """
    variation = Variation()
    for position, word in enumerate(filter(None, text.split(","))):
        if word == "none" and position == 0:
            variation = NONE
            continue
        name, _, value = word.partition("=")
        if name not in NAMES:
            raise UserError(
                f"vary has {word!r}, expected none, or NAME=AMOUNT with a name of "
                f"{', '.join(NAMES)}"
            )
        try:
            amount = float(value)
        except ValueError:
            raise UserError(f"vary {name} is {value!r}, expected a number") from None
        variation = replace(variation, **{name: amount})
    return variation
