"""The still layers of a head: shaded skin, ears, hair in front and behind, with their masks."""

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.synthetic.drawing.canvas import Canvas, mirrored, spline
from data_prep.synthetic.drawing.scene import Light
from data_prep.synthetic.identity import Identity

# The drawn area in face units, and how much finer than the frame it is drawn.
LEFT, RIGHT, TOP, BOTTOM = -1.6, 1.6, -2.05, 1.75
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Head:
    """Still layers of one clip, premultiplied by their masks; shapes [H, W, 3] and [H, W]."""

    front: np.ndarray
    front_mask: np.ndarray
    back: np.ndarray | None
    back_mask: np.ndarray | None
    scale: float
    origin: tuple[float, float]


def outline(who: Identity) -> np.ndarray:
    """Returns the skin's outline without ears, face units, float64 [K, 2]."""
    jaw, chin, tall = who.jaw, who.chin, who.face_height
    right = [
        (0.0, -1.5),
        (0.6, -1.36),
        (0.95, -0.85),
        (1.0, -0.3),
        (0.97, 0.2),
        (0.84 * jaw, 0.72 * tall),
        (0.6 * jaw, 1.05 * tall),
        (0.32 * chin, 1.27 * tall),
        (0.0, 1.32 * tall),
    ]
    return spline(mirrored(right), closed=True)


def _relief(x: np.ndarray, y: np.ndarray, who: Identity, light: Light) -> np.ndarray:
    """Returns the light on the skin, about 1 on a cheek facing the lamp; float32 [H, W]."""
    nx, ny = x / 1.12, (y + 0.1) / 1.62
    nz = np.sqrt(np.maximum(0.0, 1 - nx**2 - ny**2))
    lamp = np.maximum(0.0, nx * light.x + ny * light.y + nz * light.z)
    shade = light.ambient + (1 - light.ambient) * 1.25 * lamp + 0.06

    def bump(cx, cy, sx, sy, amount):
        nonlocal shade
        shade = shade + amount * (
            np.exp(-(((x - cx) / sx) ** 2) / 2) * np.exp(-(((y - cy) / sy) ** 2) / 2)
        )

    side = light.x * 0.05
    eye = who.eye_distance
    for s in (-1, 1):
        bump(s * eye, -0.17, 0.22, 0.13, -0.16)
        bump(s * (eye - 0.2), -0.16, 0.07, 0.1, -0.1)
        bump(s * 0.56, 0.3, 0.2, 0.16, 0.07)
        bump(s * 0.74, 0.62, 0.16, 0.25, -0.06)
        bump(s * 0.17, 0.2, 0.06, 0.22, -0.07 + s * side)
        bump(s * 0.96, -0.35, 0.12, 0.4, -0.07)
    bump(0, 0.03, 0.07, 0.25, 0.12)
    bump(0, -0.8, 0.45, 0.22, 0.06)
    bump(0, 1.17, 0.16, 0.07, 0.06)
    bump(0, 1.38, 0.6, 0.12, -0.12)
    return shade.astype(np.float32)


def _skin(x, y, who: Identity, light: Light, rng: np.random.Generator) -> np.ndarray:
    shade = _relief(x, y, who, light)
    coarse = rng.normal(0, 1, (24, 20)).astype(np.float32)
    blotch = cv2.resize(coarse, (shade.shape[1], shade.shape[0]), interpolation=cv2.INTER_CUBIC)
    shade *= 1 + 0.012 * blotch
    flush = np.zeros_like(shade)
    spots = ((-0.56, 0.36, 0.2), (0.56, 0.36, 0.2), (0, 0.36, 0.12), (-1.04, 0.1, 0.1))
    for cx, cy, s in (*spots, (1.04, 0.1, 0.1)):
        flush += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * s * s)).astype(np.float32)
    # Light that went through skin is redder, so shadows lose red last.
    pixels = np.stack(
        [
            who.skin[0] * shade**0.82 * (1 + 0.03 * flush),
            who.skin[1] * shade**1.05 * (1 - 0.055 * flush),
            who.skin[2] * shade**1.18 * (1 - 0.055 * flush),
        ],
        axis=-1,
    )
    if who.beard:
        beard = 1 / (1 + np.exp(-(y - 0.62 + 0.25 * (1 - np.abs(x))) * 9))
        lips = ((x / 0.46) ** 2 + ((y - who.mouth_height) / 0.2) ** 2) < 1
        beard = cv2.GaussianBlur(np.where(lips, 0, beard).astype(np.float32), (0, 0), 4)
        grain = 1 + 0.25 * rng.normal(size=shade.shape)
        weight = np.clip(0.55 * who.beard * beard * grain, 0, 0.8)[..., None]
        pixels = pixels * (1 - weight) + np.asarray(who.hair) * 0.7 * weight
    return pixels


_FRINGES = {  # lower edge of the front hair, right half from the temple to the middle
    "short": [(1.04, 0.05), (0.95, -0.3), (0.9, -0.62), (0.66, -0.93), (0.3, -1.04), (0, -1.06)],
    "parted": [(1.04, 0.05), (0.95, -0.3), (0.9, -0.66), (0.7, -0.86), (0.35, -0.98), (0, -1.1)],
    "cropped": [(1.02, -0.2), (0.96, -0.4), (0.92, -0.8), (0.72, -1.1), (0.36, -1.14), (0, -1.12)],
    "receding": [(1.04, 0.0), (0.97, -0.3), (0.95, -0.7), (0.84, -1.12), (0.5, -1.36), (0, -1.2)],
    "curly": [(1.06, 0.1), (0.96, -0.3), (0.88, -0.68), (0.62, -0.9), (0.3, -0.98), (0, -1.0)],
    "long": [(1.16, 1.3), (0.99, 0.35), (0.93, -0.5), (0.66, -0.9), (0.25, -1.08), (0, -1.12)],
    "bob": [(1.14, 0.95), (1.0, 0.3), (0.93, -0.45), (0.7, -0.84), (0.3, -0.98), (0, -1.04)],
    "bun": [(1.02, -0.05), (0.96, -0.35), (0.88, -0.72), (0.62, -1.0), (0.28, -1.1), (0, -1.12)],
    "fringe": [(1.12, 1.1), (0.99, 0.3), (0.92, -0.45), (0.7, -0.72), (0.35, -0.74), (0, -0.73)],
}
_CROWNS = {  # upper edge, right half from the temple to the top
    "short": [(1.1, 0.0), (1.13, -0.6), (1.0, -1.2), (0.6, -1.62), (0, -1.74)],
    "cropped": [(1.04, -0.2), (1.06, -0.7), (0.96, -1.15), (0.6, -1.5), (0, -1.62)],
    "receding": [(1.1, 0.0), (1.1, -0.6), (0.98, -1.15), (0.6, -1.5), (0, -1.6)],
    "curly": [(1.22, 0.1), (1.32, -0.6), (1.18, -1.3), (0.7, -1.78), (0, -1.9)],
    "long": [(1.22, 1.3), (1.24, 0.4), (1.2, -0.4), (1.06, -1.18), (0.62, -1.66), (0, -1.8)],
    "bob": [(1.2, 0.97), (1.27, 0.45), (1.22, -0.4), (1.06, -1.18), (0.62, -1.66), (0, -1.8)],
}
_BACKS = {
    "long": [(0, -1.7), (0.9, -1.4), (1.24, -0.5), (1.28, 0.6), (1.16, 1.6), (0, 1.7)],
    "fringe": [(0, -1.7), (0.9, -1.4), (1.24, -0.5), (1.26, 0.5), (1.08, 1.25), (0, 1.3)],
    "bob": [(0, -1.7), (0.9, -1.4), (1.25, -0.5), (1.26, 0.5), (1.0, 0.98), (0, 1.0)],
    "curly": [(0, -1.7), (0.9, -1.5), (1.3, -0.6), (1.26, 0.2), (0.9, 0.5), (0, 0.5)],
}


def _front_hair(who: Identity, rng: np.random.Generator) -> np.ndarray:
    style = who.hair_style
    fringe = np.array(_FRINGES[style])
    crown = np.array(_CROWNS.get(style, _CROWNS["long" if style == "fringe" else "short"]))
    left, right = fringe.copy(), fringe.copy()
    if style in ("parted", "long", "bob"):  # hair falls from a parting beside the middle
        left[3:5, 1] += 0.1
        right[4:, 0] += 0.16
        right[4:, 1] -= 0.05
    if style == "curly":
        crown = crown + rng.normal(0, 0.025, crown.shape)
    flip = np.array((-1.0, 1.0))
    lower = np.concatenate([left * flip, right[:-1][::-1]])
    upper = np.concatenate([crown, crown[:-1][::-1] * flip])
    return np.concatenate([spline(lower), spline(upper)])


def _strands(x, y, who: Identity, light: Light, rng: np.random.Generator) -> np.ndarray:
    """Returns hair colour with strands that fan out from the crown; float [H, W, 3]."""
    angle = np.arctan2(x, y + 2.6)
    lines = cv2.GaussianBlur(rng.normal(0, 1, (1, 720)), (0, 0), 1.5).ravel()
    index = np.clip((angle / np.pi + 0.5) * 720, 0, 719).astype(int)
    strand = lines[index] * 0.2
    if who.hair_style == "curly":
        strand = 0.0
        for rows, amount in ((26, 0.07), (52, 0.11)):
            curls = rng.normal(0, 1, (rows, rows)).astype(np.float32)
            strand += amount * cv2.resize(curls, x.shape[::-1], interpolation=cv2.INTER_CUBIC)
    ring = np.exp(-(((np.hypot(x - 0.3 * light.x, 0.85 * (y + 0.35)) - 1.02) / 0.12) ** 2))
    fade = 1 / (1 + np.exp((y + 0.55) * 9))
    gloss = 0.5 * ring * fade * np.clip(0.6 + 0.5 * light.x * x, 0, 1)
    side = 1 + 0.16 * light.x * x - 0.1 * np.maximum(0, y)
    shade = np.clip((0.82 + strand + gloss) * side, 0.25, 2.2)
    return np.asarray(who.hair) * shade[..., None] + 10 * gloss[..., None]


def make_head(who: Identity, light: Light, unit: float, rng: np.random.Generator) -> Head:
    """Renders the still layers.

    Args:
      who: the actor.
      light: this clip's lamp.
      unit: pixels of the frame per face unit.
      rng: texture of skin and hair.
    """
    scale = unit * SUPERSAMPLING
    width, height = round((RIGHT - LEFT) * scale), round((BOTTOM - TOP) * scale)
    origin = (-LEFT * scale, -TOP * scale)
    x = (np.arange(width) - origin[0])[None] / scale + np.zeros((height, 1))
    y = (np.arange(height) - origin[1])[:, None] / scale + np.zeros((1, width))
    pixels = _skin(x, y, who, light, rng)
    mask = np.zeros((height, width), np.uint8)
    on_mask = Canvas(mask, scale, origin)

    image = np.ascontiguousarray(np.clip(pixels * light.tint, 0, 255).astype(np.uint8))
    drawn = Canvas(image, scale, origin)
    for s in (-1, 1):
        on_mask.ellipse((s * 1.03, 0.06), (0.12, 0.27), 255, s * 8)
        tone = [int(c * 0.8 * light.ambient * t) for c, t in zip(who.skin, light.tint, strict=True)]
        inner = [(s * 1.0, -0.1), (s * 1.07, -0.12), (s * 1.1, 0.02), (s * 1.05, 0.2)]
        drawn.line(spline(inner), tone, 0.035)
        drawn.line([(s * 1.03, 0.0), (s * 1.05, 0.1)], tone, 0.04)
    face = np.zeros_like(mask)
    Canvas(face, scale, origin).fill(outline(who), 255)
    # The face casts a soft edge on ears and the sides turn away from the lamp.
    edge = cv2.GaussianBlur(face, (0, 0), 0.05 * scale).astype(np.float32)[..., None] / 255
    inside = face.astype(np.float32)[..., None] / 255
    turned = 1 - 0.24 * inside * np.clip(1.55 - 1.55 * edge, 0, 1) - 0.1 * (1 - inside)
    image = image * turned
    mask = np.maximum(mask, face)

    hair = np.clip(_strands(x, y, who, light, rng) * light.tint * light.level, 0, 255)
    front = np.zeros_like(mask)
    Canvas(front, scale, origin).fill(_front_hair(who, rng), 255)
    if who.hair_style == "bun":
        Canvas(front, scale, origin).ellipse((0.05, -1.78), (0.36, 0.25), 255)
    # Hair shades the brow under it.
    shadow = cv2.GaussianBlur(front, (0, 0), 0.06 * scale).astype(np.float32)[..., None] / 255
    image = image * (1 - 0.3 * shadow)
    weight = front.astype(np.float32)[..., None] / 255
    image = image * (1 - weight) + hair * weight
    mask = np.maximum(mask, front)

    def premultiplied(rgb, alpha):
        return np.rint(np.clip(rgb * (alpha[..., None] / 255.0), 0, 255)).astype(np.uint8)

    back = back_mask = None
    if who.hair_style in _BACKS:
        back_mask = np.zeros_like(mask)
        Canvas(back_mask, scale, origin).fill(
            spline(mirrored(_BACKS[who.hair_style]), closed=True), 255
        )
        back = premultiplied(hair * 0.62, back_mask)
    return Head(premultiplied(image, mask), mask, back, back_mask, scale, origin)
