"""What surrounds a face and says nothing of its emotion: light, head motion, clothes, room."""

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.synthetic.drawing.canvas import Canvas, mirrored, shifted, spline
from data_prep.synthetic.identity import Identity

_DEGREES = 20.0  # of yaw and pitch, at 1
_CAMERA = 7.0  # its distance in face units
UNIT = 0.208  # half a face's width, as a share of the frame's size


@dataclass(frozen=True)
class Light:
    """One lamp: direction (unit vector; x right, y down, z to the camera), share that is ambient,
    colour gains and overall level."""

    x: float
    y: float
    z: float
    ambient: float
    tint: tuple[float, float, float]
    level: float


@dataclass(frozen=True)
class Motion:
    """Pose per frame, float64 [F]: offset of the head (face units), roll (degrees), yaw and pitch
    (about -1..1; 1 is 20 degrees), and the size of the head."""

    x: np.ndarray
    y: np.ndarray
    roll: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    size: np.ndarray


def make_light(who: Identity, rng: np.random.Generator, from_side: float = 0.0) -> Light:
    """Returns a lamp in front of the face and above it, or with chance `from_side` beside it."""
    direction = np.array((rng.uniform(-0.7, 0.7), rng.uniform(-0.65, -0.15), 1.0))
    ambient = float(rng.uniform(0.62, 0.76))
    aside, far = rng.uniform(), rng.uniform()
    if aside < from_side:
        # Detectors lose dark faces with a side in shadow, as cameras do.
        strong = float(np.clip((np.mean(who.skin) - 70) / 90, 0.1, 1))
        direction[0] = np.copysign(0.7 + (0.2 + 0.6 * far) * strong, direction[0])
        ambient -= 0.12 * strong
    direction /= np.linalg.norm(direction)
    warmth = float(rng.uniform(-0.06, 0.06))
    level = float(rng.uniform(0.9, 1.08))
    tint = (level * (1 + warmth), level, level * (1 - warmth))
    return Light(*map(float, direction), ambient, tint, level)


def make_motion(times: np.ndarray, pose: float, rng: np.random.Generator) -> Motion:
    """Returns the sway of a speaking head, turned and moved by up to `pose`; `times` [F] in s."""

    def sway(amount: float, start: float = 0.0) -> np.ndarray:
        rates = rng.uniform(0.15, 0.9, 3)[:, None]
        phases = rng.uniform(0, 2 * np.pi, 3)[:, None]
        weights = rng.dirichlet(np.ones(3))[:, None]
        waves = weights * np.sin(2 * np.pi * rates * times + phases)
        return start + amount * waves.sum(axis=0)

    return Motion(
        x=pose * sway(0.07, rng.uniform(-0.1, 0.1)),
        y=pose * sway(0.05, rng.uniform(-0.06, 0.06)),
        roll=pose * sway(3.3, rng.uniform(-2.8, 2.8)),
        yaw=pose * sway(0.36, rng.uniform(-0.3, 0.3)),
        pitch=pose * sway(0.28, rng.uniform(-0.22, 0.22)),
        size=sway(0.015, rng.uniform(0.94, 1.05)),
    )


def _room(size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a blurred wall with a few things on it, float32 [size, size, 3]."""
    hsv = np.uint8([[[rng.integers(0, 180), rng.integers(10, 80), rng.integers(110, 190)]]])
    base = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    coarse = rng.normal(0, 1, (6, 6, 1)).astype(np.float32)
    cloud = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    room = base * (1 + 0.06 * cloud)
    for _ in range(int(rng.integers(0, 5))):
        x0, y0 = rng.integers(-size // 4, size, 2)
        x1, y1 = x0 + rng.integers(size // 8, size // 2), y0 + rng.integers(size // 8, size)
        color = base * rng.uniform(0.7, 1.25) + rng.normal(0, 12, 3)
        cv2.rectangle(room, (int(x0), int(y0)), (int(x1), int(y1)), color.tolist(), cv2.FILLED)
    room = cv2.GaussianBlur(room, (0, 0), size * rng.uniform(0.012, 0.04))
    slope = np.linspace(-1, 1, size, dtype=np.float32)
    fall = rng.uniform(-0.12, 0.12, 2)
    return room * (1 + fall[0] * slope[None, :, None] + fall[1] * slope[:, None, None])


@dataclass(frozen=True)
class Stage:
    """The room, uint8 [size, size, 3] RGB; neck and shoulders, premultiplied by their mask; and
    what the mask leaves of the room, uint8 [size, size, 3]."""

    room: np.ndarray
    body: np.ndarray
    around: np.ndarray


def make_stage(who: Identity, light: Light, size: int, rng: np.random.Generator) -> Stage:
    """Returns the room and body of one clip; `size`: side of the frame in pixels."""
    fine = 2
    room = np.clip(_room(size, rng) * light.level, 0, 255).astype(np.uint8)
    image = np.zeros((size * fine, size * fine, 3), np.uint8)
    mask = np.zeros_like(image)
    scale = UNIT * size * fine
    middle = (size * fine / 2, size * fine * 0.5)
    canvas, on_mask = Canvas(image, scale, middle), Canvas(mask, scale, middle)
    hsv = np.uint8([[[rng.integers(0, 180), rng.integers(20, 190), rng.integers(40, 215)]]])
    cloth = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float) * light.tint
    broad = 1.12 if who.sex == "Male" else 1.0
    neck = 0.6 if who.sex == "Male" else 0.5

    def tone(color, gain):
        return [int(np.clip(c * gain, 0, 255)) for c in color]

    skin = np.asarray(who.skin) * light.tint
    body = spline(
        mirrored(
            [
                (0.0, 1.5),
                (neck + 0.06, 1.42),
                (neck + 0.3, 1.62),
                (1.5 * broad, 1.86),
                (1.9 * broad, 2.3),
                (2.0 * broad, 3.2),
                (0, 3.3),
            ]
        ),
        closed=True,
    )
    throat = [(-neck, 0.4), (neck, 0.4), (neck + 0.04, 1.5), (0.3, 1.86), (0, 1.9)]
    throat += [(-0.3, 1.86), (-neck - 0.04, 1.5)]
    collar = int(rng.integers(0, 3))
    canvas.fill(body, tone(cloth, 0.8))
    on_mask.fill(body, (255, 255, 255))
    lit = body * (0.94, 1.0) + (0.05 * light.x, 0.06)
    canvas.fill(lit, tone(cloth, 0.92))
    depth = (1.72, 1.98, 1.86)[collar]
    canvas.fill(throat, tone(skin, 0.8))
    on_mask.fill(throat, (255, 255, 255))
    for reach, gain in ((1.56, 0.73), (1.46, 0.66), (1.36, 0.6)):  # the chin's shadow
        edge = spline([(neck + 0.01, reach - 0.2), (0.5 * neck, reach - 0.05), (0, reach),
                       (-0.5 * neck, reach - 0.05), (-neck - 0.01, reach - 0.2)])  # fmt: skip
        top = [(-neck, 0.4), (neck, 0.4)]
        canvas.fill(np.concatenate([edge, top]), tone(skin * (1, 0.96, 0.92), gain))
    if collar == 0:  # round neck
        ring = [(-neck - 0.1, 1.42), (-neck * 0.7, 1.66), (0, depth), (neck * 0.7, 1.66)]
        ring = spline([*ring, (neck + 0.1, 1.42)])
        below = np.concatenate([ring, [(neck + 0.1, 2.2), (-neck - 0.1, 2.2)]])
        canvas.fill(below, tone(cloth, 0.92))
        canvas.line(ring, tone(cloth, 0.7), 0.07)
    elif collar == 1:  # V neck
        for s in (-1, 1):
            flap = [(s * (neck + 0.12), 1.42), (s * 0.03, depth), (s * 0.03, 2.3), (s * 0.95, 2.3)]
            canvas.fill(flap, tone(cloth, 0.92))
            canvas.line([(s * (neck + 0.08), 1.44), (0, depth)], tone(cloth, 0.68), 0.06)
    else:  # shirt
        canvas.fill([(-neck, 1.6), (0, depth), (neck, 1.6), (neck, 2.4), (-neck, 2.4)],
                    tone(cloth, 0.92))  # fmt: skip
        for s in (-1, 1):
            flap = [(s * (neck + 0.06), 1.36), (s * (neck + 0.3), 1.72), (s * 0.3, 2.02),
                    (0, 1.84)]  # fmt: skip
            canvas.fill(flap, tone(cloth, 1.08))
            on_mask.fill(flap, (255, 255, 255))
            canvas.line([*flap, flap[0]], tone(cloth, 0.7), 0.03)
        canvas.line([(0, 1.9), (0, 3.0)], tone(cloth, 0.72), 0.03)
    small = (size, size)
    # Premultiplied: nothing shines where the mask is dark.
    body = cv2.resize(np.minimum(image, mask), small, interpolation=cv2.INTER_AREA)
    return Stage(room, body, 255 - cv2.resize(mask, small, interpolation=cv2.INTER_AREA))


def frame_matrix(motion: Motion, index: int, size: int, scale: float, origin) -> np.ndarray:
    """Returns the homography [3, 3] from the head's canvas pixels to the frame's pixels.

    The face turns as a plane seen from a few head widths away; its parts move before it by
    parallax (`face.Brush.at`).
    """
    unit = UNIT * size
    angle = np.deg2rad(motion.roll[index])
    cos, sin = np.cos(angle), np.sin(angle)
    yaw, pitch = np.deg2rad(_DEGREES * np.array((motion.yaw[index], motion.pitch[index])))
    # The head turns about the neck.
    pivot = shifted(origin, 0.0, 1.1 * scale)
    to_units = np.array(((1, 0, -pivot[0]), (0, 1, -pivot[1]), (0, 0, scale))) / scale
    turned = np.array(
        (
            (np.cos(yaw), 0, 0),
            (0, np.cos(pitch), 0),
            (-np.sin(yaw) / _CAMERA, np.sin(pitch) / _CAMERA, 1),
        )
    )
    # Measured at the middle of the face, or a nod would change its size.
    turned[2, 2] += 1.1 * turned[2, 1]
    rolled = np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1)))
    zoom = unit * motion.size[index]
    target = np.array((size / 2, size * 0.5 + 1.1 * unit))
    target = target + unit * np.array((motion.x[index], motion.y[index]))
    placed = np.array(((zoom, 0, target[0]), (0, zoom, target[1]), (0, 0, 1)))
    return placed @ rolled @ turned @ to_units
