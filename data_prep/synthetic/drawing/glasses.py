"""Glasses: who wears them, and how they are drawn before the eyes of one frame."""

from dataclasses import dataclass

import numpy as np

from data_prep.synthetic.drawing.canvas import Canvas, shifted

_COLORS = ((22, 20, 20), (70, 44, 28), (128, 130, 136), (60, 62, 84))
_DEPTH = 0.16
_T = np.linspace(0, 2 * np.pi, 28, endpoint=False)


@dataclass(frozen=True)
class Glasses:
    """Colour RGB; thickness and half height of a rim (face units); `square`: 2 round, 4 square."""

    color: tuple[float, float, float]
    thickness: float
    height: float
    square: float


def make_glasses(seed: int, actor: int, share: float) -> Glasses | None:
    """Returns an actor's glasses; `share`: of the actors who wear them."""
    rng = np.random.default_rng([seed, 6, actor])
    worn = rng.uniform() < share
    color = _COLORS[rng.integers(len(_COLORS))]
    glasses = Glasses(color, *map(float, rng.uniform((0.02, 0.19, 2.2), (0.036, 0.24, 4.0))))
    return glasses if worn else None


def draw_glasses(brush, glasses: Glasses, eye_line: float) -> None:
    """Draws rims, bridge and temples, and a gleam on the lenses; `eye_line`: y of the eyes."""
    who, canvas, color = brush.who, brush.drawn, brush.color(glasses.color)
    power = 2 / glasses.square
    round_x = np.sign(np.cos(_T)) * np.abs(np.cos(_T)) ** power
    round_y = np.sign(np.sin(_T)) * np.abs(np.sin(_T)) ** power
    half = 0.86 * who.eye_distance - 0.04
    for s in (-1, 1):
        middle = brush.at((s * (who.eye_distance + 0.01), eye_line + 0.04), _DEPTH)
        rim = middle + np.stack([half * round_x, glasses.height * round_y], axis=1)
        _gleam(canvas, rim, s * brush.light.x)
        canvas.line(np.concatenate([rim, rim[:2]]), color, glasses.thickness)
        ear = brush.at((s * 1.0, eye_line + 0.02), 0.0)
        canvas.line([shifted(middle, s * half, -0.04), ear], color, glasses.thickness)
    bridge = [(-who.eye_distance + half, 0.0), (0.0, -0.035), (who.eye_distance - half, 0.0)]
    canvas.line(brush.at(shifted(bridge, 0, eye_line + 0.02), _DEPTH), color, glasses.thickness)


def _gleam(canvas: Canvas, rim: np.ndarray, toward: float) -> None:
    """Lightens what lies behind a lens, more on the side of the lamp."""
    view, _ = canvas.view(rim.min(axis=0), rim.max(axis=0))
    mask = np.zeros(view.image.shape[:2], np.uint8)
    Canvas(mask, view.scale, view.origin).fill(rim, 255)
    amount = (0.05 + 0.06 * max(0.0, toward)) * (mask[..., None] / 255.0)
    view.image[:] = np.rint(view.image * (1 - amount) + 235 * amount).astype(np.uint8)
