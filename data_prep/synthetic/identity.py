"""Who a rendered actor is: proportions, colours and voice, fixed by the seed and the actor."""

from dataclasses import dataclass

import numpy as np

_SKINS = np.array(
    [
        (244, 208, 186),
        (236, 194, 166),
        (226, 180, 148),
        (211, 162, 126),
        (190, 138, 102),
        (160, 112, 82),
        (128, 88, 64),
        (104, 72, 54),
    ],
    np.float64,
)
_HAIRS = np.array(
    [
        (38, 28, 24),
        (58, 40, 30),
        (86, 58, 38),
        (122, 84, 50),
        (176, 136, 84),
        (134, 66, 38),
    ],
    np.float64,
)
_GREY = np.array((168, 166, 164), np.float64)
_IRISES = np.array(
    [(72, 46, 28), (96, 64, 36), (88, 96, 52), (62, 98, 120), (84, 108, 112)], np.float64
)
_WOMEN = ("long", "long", "bob", "bun", "fringe", "curly")
_MEN = ("short", "short", "parted", "receding", "curly", "cropped")


@dataclass(frozen=True)
class Identity:
    """One actor. Lengths are in face units (half the width of the face); colours are RGB 0-255."""

    actor: int
    sex: str  # "Male" or "Female"
    age: int
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    lips: tuple[float, float, float]
    hair_style: str
    beard: float  # 0 shaven .. 0.7 dark stubble, above 1 a full beard
    head: float  # size of the whole head
    face_height: float
    jaw: float
    chin: float
    eye_distance: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    brow_height: float
    brow_thickness: float
    nose_width: float
    nose_length: float
    mouth_width: float
    mouth_height: float
    lip_fullness: float
    pitch: float  # Hz, the habitual fundamental frequency
    tract: float  # formant scale; shorter vocal tracts are above 1
    breath: float
    expressiveness: float


def sex_of(actor: int) -> str:
    """Returns the sex: odd numbers are men, as in RAVDESS."""
    return "Male" if actor % 2 else "Female"


def make_identity(seed: int, actor: int, beards: float = 0.0) -> Identity:
    """Returns the identity of actor number `actor` (1, 2, ...) in the corpus of `seed`.

    Args:
      seed: of the corpus.
      actor: odd numbers are men.
      beards: share of men with a full beard.
    """
    rng = np.random.default_rng([seed, 1, actor])
    male = sex_of(actor) == "Male"
    age = int(rng.integers(20, 72))
    tone = rng.uniform(0, len(_SKINS) - 1.5)
    low = int(tone)
    skin = _SKINS[low] + (tone - low) * (_SKINS[min(low + 1, len(_SKINS) - 1)] - _SKINS[low])
    # Fair hair and light eyes go with light skin often enough to look natural.
    hair = _HAIRS[rng.integers(0, len(_HAIRS) if tone < 3 else 3)] * rng.uniform(0.85, 1.15)
    grey = np.clip((age - 45) / 30, 0, 1) * rng.uniform(0.2, 1.0)
    # Grey beyond the skin's own brightness hides the forehead from detectors.
    grey *= np.clip((skin.mean() - 60) / 80, 0.1, 1)
    hair = hair + grey * (_GREY - hair)
    iris = _IRISES[rng.integers(0, len(_IRISES) if tone < 3 else 2)]
    rosy = np.array((178, 88, 84) if male else (186, 70, 78), np.float64)
    lips = skin * 0.45 + rosy * 0.55 * (0.55 + 0.45 * skin.mean() / 190)

    def around(center: float, spread: float) -> float:
        return float(center + spread * np.clip(rng.normal(), -2, 2))

    full_beard = male and np.random.default_rng([seed, 7, actor]).uniform() < beards
    return Identity(
        actor=actor,
        sex="Male" if male else "Female",
        age=age,
        skin=tuple(map(float, skin)),
        hair=tuple(map(float, np.clip(hair, 0, 255))),
        iris=tuple(map(float, iris)),
        lips=tuple(map(float, lips)),
        hair_style=str(rng.choice(_MEN if male else _WOMEN)),
        beard=_beard(rng, full_beard) if male else 0.0,
        head=around(1.0, 0.025),
        face_height=around(1.0, 0.03),
        jaw=around(1.06 if male else 0.95, 0.04),
        chin=around(1.1 if male else 0.9, 0.06),
        eye_distance=around(0.44, 0.01),
        eye_width=around(0.225 if male else 0.24, 0.008),
        eye_open=around(0.108 if male else 0.12, 0.006),
        eye_tilt=around(0.012, 0.012),
        brow_height=around(0.33 if male else 0.35, 0.012),
        brow_thickness=around(0.1 if male else 0.078, 0.006),
        nose_width=around(0.2 if male else 0.175, 0.014),
        nose_length=around(1.0, 0.04),
        mouth_width=around(0.4 if male else 0.375, 0.014),
        mouth_height=around(0.79, 0.014),
        lip_fullness=around(1.05 if male else 1.25, 0.08),
        pitch=around(112.0 if male else 205.0, 11.0 if male else 16.0),
        tract=around(1.0 if male else 1.15, 0.03),
        breath=float(rng.uniform(0.02, 0.08)),
        expressiveness=around(1.0, 0.05),
    )


def _beard(rng: np.random.Generator, full: bool) -> float:
    stubble = float(rng.choice([0.0, 0.0, 0.35, 0.7]))
    return 1.35 if full else stubble
