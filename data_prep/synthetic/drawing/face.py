"""One frame of a face: brows, eyes, nose and mouth drawn from action units on a still head."""

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.synthetic.drawing.canvas import Canvas, shifted, spline
from data_prep.synthetic.drawing.glasses import Glasses, draw_glasses
from data_prep.synthetic.drawing.head import Head
from data_prep.synthetic.drawing.mouth import paint_mouth
from data_prep.synthetic.drawing.scene import Light
from data_prep.synthetic.identity import Identity

REGIONS = ("face", "eyes", "nose", "mouth")
_EYE_LINE = -0.13
_JAW_LINE = 0.55  # rows below this are stretched when the jaw drops
_T = np.linspace(-1.0, 1.0, 11)  # along a lid, from the inner to the outer corner
_ARCH = 1 - np.abs(_T) ** 2.3


@dataclass(frozen=True)
class Pose:
    """State of a face in one frame. `units`: action unit -> 0..1; `shut`: closure of the lids;
    `speech`: opening of the lips by speech 0..1; `rounded`: 0..1; `jaw`: drop of the chin 0..1;
    `yaw`, `pitch`: -1..1."""

    units: dict[str, float]
    shut: float = 0.0
    speech: float = 0.0
    rounded: float = 0.0
    jaw: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0


class Brush:
    """Where the parts of one frame are drawn: colours, soft shades, and the corners they reach.

    `soft` is a grey map (128 changes nothing) that is blurred and multiplied onto the skin once
    the shapes are on it; `drawn` is the image itself, for what is sharp.
    """

    def __init__(self, who: Identity, light: Light, soft: Canvas, drawn: Canvas, pose: Pose):
        self.who, self.light, self.pose = who, light, pose
        self.soft, self.drawn = soft, drawn
        self.reached: dict[str, list[np.ndarray]] = {"eyes": [], "nose": [], "mouth": []}

    def at(self, points, depth: float) -> np.ndarray:
        """Moves `points` by the parallax of a part that is `depth` in front of the face."""
        return shifted(points, depth * self.pose.yaw, depth * 0.8 * self.pose.pitch)

    def color(self, rgb, gain: float = 1.0) -> tuple[int, int, int]:
        """Returns a colour in this clip's light."""
        tint = self.light.tint
        return tuple(min(255, int(c * t * gain)) for c, t in zip(rgb, tint, strict=True))

    def shade(self, region: str, points, amount: float, width: float) -> None:
        """Draws a soft line, darker for negative `amount` (share of the skin's light)."""
        if abs(amount) > 0.01:
            self.soft.line(points, max(0, min(255, int(128 * (1 + amount)))), width)
            self.reach(region, points)

    def dab(self, region: str, center, axes, amount: float, angle: float = 0.0) -> None:
        """Draws a soft patch, as `shade`."""
        if abs(amount) > 0.01:
            self.soft.ellipse(center, axes, max(0, min(255, int(128 * (1 + amount)))), angle)
            self.reach(region, [np.subtract(center, axes), np.add(center, axes)])

    def reach(self, region: str, points) -> None:
        """Lets the region's box hold `points`."""
        self.reached[region].append(np.asarray(points, np.float64))


class FacePainter:
    """Paints the frames of one clip.

    Args:
      who, head, light: the actor, its still layers, the lamp.
      asymmetry: float [2], how much stronger the left and the right side move (about 1).
      glasses: what the actor wears before the eyes; None: nothing.
    """

    def __init__(
        self,
        who: Identity,
        head: Head,
        light: Light,
        asymmetry: np.ndarray,
        glasses: Glasses | None = None,
    ):
        self.who, self.head, self.light = who, head, light
        self.asymmetry, self.glasses = asymmetry, glasses

    def paint(self, pose: Pose):
        """Draws one frame.

        Returns:
          image uint8 [H, W, 3] premultiplied, mask uint8 [H, W], and the boxes of `REGIONS`,
          float64 [4, 2, 2] (low and high corner, pixels of the head's canvas).
        """
        image, mask = self._still(pose.jaw)
        soft = np.full(mask.shape, 128, np.uint8)
        head = self.head
        brush = Brush(
            self.who,
            self.light,
            Canvas(soft, head.scale, head.origin),
            Canvas(image, head.scale, head.origin),
            pose,
        )
        sides = [
            (s, {u: w * self.asymmetry[i] for u, w in pose.units.items()})
            for i, s in enumerate((-1, 1))
        ]
        for s, units in sides:
            _shade_eye(brush, s, units)
        _shade_nose(brush, pose.units)
        mouth = paint_mouth(brush, pose)
        self._apply(soft, image)
        if abs(pose.units["redness"]) > 0.02:
            _redden(brush, pose.units["redness"])
        _draw_nose(brush, pose.units)
        for s, units in sides:
            _draw_eye(brush, s, units)
            _draw_brow(brush, s, units)
        mouth()
        if self.glasses is not None:
            draw_glasses(brush, self.glasses, _EYE_LINE)
        return image, mask, self._boxes(brush)

    def _still(self, jaw: float) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self.head.front.copy(), self.head.front_mask
        row = round(_JAW_LINE * self.head.scale + self.head.origin[1])
        extra = round(0.13 * jaw * self.head.scale)
        if extra > 0:
            below = image.shape[0] - row
            tall = round(below * (1 + extra / ((1.32 - _JAW_LINE) * self.head.scale)))
            size = (image.shape[1], tall)
            mask = mask.copy()
            image[row:] = cv2.resize(image[row:], size)[:below]
            mask[row:] = cv2.resize(mask[row:], size)[:below]
        return image, mask

    def _apply(self, soft: np.ndarray, image: np.ndarray) -> None:
        canvas = Canvas(soft, self.head.scale, self.head.origin)
        window = canvas.view((-1.05, -0.95), (1.05, 1.5))[1]
        sigma = 0.032 * self.head.scale
        size = 2 * int(2.2 * sigma) + 1
        blurred = cv2.GaussianBlur(soft[window], (size, size), sigma)
        cv2.multiply(image[window], cv2.merge([blurred] * 3), image[window], 1 / 128)

    def _boxes(self, brush: Brush) -> np.ndarray:
        tall = self.who.face_height * 1.32 + 0.13 * brush.pose.jaw
        boxes = [((-1.0, -1.1), (1.0, tall))]
        for region in REGIONS[1:]:
            points = np.concatenate(brush.reached[region])
            boxes.append((points.min(axis=0) - 0.08, points.max(axis=0) + 0.08))
        return brush.drawn.pixels(np.array(boxes))


def _eye_center(brush: Brush, s: int) -> np.ndarray:
    return brush.at((s * brush.who.eye_distance, _EYE_LINE), 0.1)


def _lids(brush: Brush, s: int, units: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    who, shut = brush.who, brush.pose.shut
    up = who.eye_open * max(
        0.16, 1.2 + 0.85 * units["AU5"] - 0.45 * units["AU7"] - 0.72 * units["AU43"]
        - 0.12 * units["AU6"] - 0.2 * max(0.0, units["gaze"]),
    )  # fmt: skip
    low = who.eye_open * max(
        0.1, 0.7 + 0.25 * units["AU5"] - 0.42 * units["AU7"] - 0.5 * units["AU6"]
    )
    up = up * (1 - shut) - 0.8 * low * shut
    # The brows pull the upper lid along: in at a frown, up and in at sorrow.
    lean = 0.42 * units["AU4"] * (1 - min(1.0, units["AU1"])) - 0.4 * units["AU1"] * (
        1 - min(1.0, units["AU2"])
    )
    cx, cy = _eye_center(brush, s)
    x = cx + s * _T * who.eye_width
    tilt = who.eye_tilt * _T
    upper = np.stack([x, cy - up * _ARCH * (1 + lean * _T) - tilt], axis=1)
    lower = np.stack([x, cy + low * (1 - _T**2) - tilt], axis=1)
    return upper, lower


def _shade_eye(brush: Brush, s: int, units: dict[str, float]) -> None:
    upper, lower = _lids(brush, s, units)
    lift = 0.055 + 0.03 * units["AU5"]
    brush.shade("eyes", shifted(upper, 0, -lift), -0.2, 0.05)
    crow = max(0.0, units["AU6"])
    bag = shifted(lower[2:-1], 0, 0.07)
    brush.shade("eyes", bag, -0.07 - 0.2 * crow - 0.1 * units["AU7"] - brush.who.age / 700, 0.045)
    if crow > 0.02:
        brush.dab("eyes", shifted(lower[5], s * 0.03, 0.2), (0.2, 0.07), 0.13 * crow)
        corner = shifted(lower[-1], s * 0.06, 0.0)
        for slope in (-0.08, 0.02, 0.12):
            brush.shade("eyes", [corner, shifted(corner, s * 0.15, slope)], -0.3 * crow, 0.025)
    frown = max(0.0, units["AU4"])
    if frown > 0.02:
        x = s * (0.1 - 0.025 * frown)
        furrow = spline([(x, -0.5), (x * 0.85, -0.36), (x * 1.25, -0.24)])
        brush.shade("eyes", brush.at(furrow, 0.1), -0.45 * frown, 0.035)
    worry = max(0.0, min(units["AU1"], 1.0))
    if worry > 0.02:
        for row in (0.0, 0.12):
            y = -0.7 - row - 0.03 * units["AU2"]
            line = spline([(0.0, y + 0.02), (s * 0.25, y), (s * 0.5, y + 0.05)])
            brush.shade("eyes", brush.at(line, 0.06), -0.2 * worry, 0.03)


def _draw_eye(brush: Brush, s: int, units: dict[str, float]) -> None:
    who, pose = brush.who, brush.pose
    upper, lower = _lids(brush, s, units)
    brush.reach("eyes", upper)
    brush.reach("eyes", lower)
    slit = np.concatenate([upper, lower[-2:0:-1]])
    view, _ = brush.drawn.view(slit.min(axis=0) - 0.05, slit.max(axis=0) + 0.05)
    ball = np.empty_like(view.image)
    # Sockets shade the white of the eye, the more the darker they are; detectors look for a dark
    # band across the eyes, which shining white would hide.
    side = (0.96 + 0.12 * brush.light.x * s) * (0.52 + 0.45 * sum(who.skin) / 600)
    ball[:] = brush.color((236, 230, 224), side)
    canvas = Canvas(ball, view.scale, view.origin)
    center = shifted(_eye_center(brush, s), 0.05 * pose.yaw, 0.01 + 0.075 * units["gaze"])
    radius = 0.118
    canvas.line(shifted(upper, 0, 0.015), brush.color((168, 156, 150), side), 0.05)
    canvas.ellipse(center, (radius, radius), brush.color(np.asarray(who.iris) * 0.5, side))
    canvas.ellipse(
        shifted(center, 0, 0.012), (radius * 0.8, radius * 0.8), brush.color(who.iris, 1.15)
    )
    canvas.ellipse(center, (radius * 0.45, radius * 0.45), (14, 12, 12))
    glint = shifted(center, 0.035 + 0.02 * brush.light.x, -0.04)
    canvas.ellipse(glint, (0.026, 0.026), brush.color((250, 250, 250)))
    inside = np.zeros(ball.shape[:2], np.uint8)
    Canvas(inside, view.scale, view.origin).fill(slit, 255)
    cv2.copyTo(ball, cv2.threshold(inside, 110, 255, cv2.THRESH_BINARY)[1], view.image)

    lash = brush.color(np.asarray(who.skin) * 0.16 + 6)
    heavy = 0.045 if who.sex == "Female" else 0.034
    brush.drawn.line(upper, lash, heavy)
    if who.sex == "Female":
        tip = upper[-1]
        brush.drawn.line(
            [shifted(tip, -s * 0.03, -0.01), shifted(tip, s * 0.05, -0.03)], lash, 0.03
        )
    brush.drawn.line(lower[1:], brush.color(np.asarray(who.skin) * 0.52), 0.022)


def _draw_brow(brush: Brush, s: int, units: dict[str, float]) -> None:
    who = brush.who
    inner, outer, frown = units["AU1"], units["AU2"], units["AU4"]
    y = _EYE_LINE - who.brow_height
    squint = 0.025 * units["AU7"] + 0.02 * units["AU6"]
    spine = [
        (0.17 - 0.055 * frown, y + 0.015 - 0.25 * inner + 0.2 * frown),
        (0.3 - 0.04 * frown, y - 0.035 - 0.18 * inner - 0.04 * outer + 0.16 * frown),
        (0.47, y - 0.065 - 0.03 * inner - 0.19 * outer + 0.04 * frown),
        (0.64, y - 0.03 + 0.05 * inner - 0.23 * outer - 0.04 * frown),
        (0.76, y + 0.055 + 0.08 * inner - 0.2 * outer - 0.05 * frown),
    ]
    spine = shifted(spine, 0, squint) * (s, 1.0)
    spine = spline(brush.at(spine, 0.1), steps=4)
    along = np.linspace(0, 1, len(spine))
    half = 0.5 * who.brow_thickness * (1.05 - 0.75 * along**1.6)
    normal = np.stack([np.zeros_like(half), half], axis=1)
    band = np.concatenate([spine - normal, (spine + normal)[::-1]])
    brush.reach("eyes", band)
    hair = np.asarray(who.hair) * 0.72 + np.asarray(who.skin) * 0.06
    hair = np.minimum(hair, np.asarray(who.skin) * 0.6)
    brush.drawn.fill(band, brush.color(hair * 1.12))
    # A few hairs break the lower edge.
    for k in range(1, len(spine) - 3, 3):
        root = shifted(spine[k], 0, half[k])
        brush.drawn.line(
            [root, shifted(root, s * 0.06, -1.9 * half[k])], brush.color(hair * 0.72), 0.01
        )


def _nose(brush: Brush, units: dict[str, float]) -> tuple[float, float]:
    """Returns the height of the nose's base and half the width of its wings."""
    who = brush.who
    base = 0.43 * who.nose_length - 0.075 * units["AU9"] + 0.05 * units["tip"]
    wide = who.nose_width * (1 + 0.14 * units["AU9"] + 0.3 * units["AU38"] - 0.24 * units["AU39"])
    return base, wide


def _shade_nose(brush: Brush, units: dict[str, float]) -> None:
    base, wide = _nose(brush, units)
    light = brush.light
    for s in (-1, 1):
        side = -0.09 + 0.12 * light.x * s
        ridge = [(s * 0.085, -0.1), (s * 0.08, 0.12), (s * 0.62 * wide, base - 0.1)]
        brush.shade("nose", brush.at(spline(ridge), 0.17), side, 0.07)
        wrinkle = max(0.0, units["AU9"])
        for k, y in enumerate((-0.14, -0.03, 0.08)):
            fold = [(s * 0.02, y), (s * (0.13 + 0.02 * k), y - 0.06 + 0.02 * k)]
            brush.shade("nose", brush.at(fold, 0.14), -0.5 * wrinkle, 0.028)
        fold = spline([(s * (wide + 0.03), base - 0.12), (s * (wide + 0.11), base - 0.02),
                       (s * (wide + 0.15), base + 0.09)])  # fmt: skip
        depth = 0.03 + max(0.0, brush.who.age - 30) / 350 + 0.32 * wrinkle
        brush.shade("nose", brush.at(fold, 0.14), -depth, 0.035)
    brush.dab("nose", brush.at((0.03 * light.x, base - 0.11), 0.25), (0.06, 0.05), 0.17)
    brush.dab("nose", brush.at((0, base + 0.05), 0.2), (wide * 0.85, 0.035), -0.2)


def _draw_nose(brush: Brush, units: dict[str, float]) -> None:
    base, wide = _nose(brush, units)
    skin = np.asarray(brush.who.skin)
    flare = 1 + 0.5 * units["AU38"] - 0.35 * units["AU39"]
    for s in (-1, 1):
        wing = [(s * 0.86 * wide, base - 0.13), (s * 1.04 * wide, base - 0.04),
                (s * 0.92 * wide, base + 0.035), (s * 0.62 * wide, base + 0.03)]  # fmt: skip
        curve = brush.at(spline(wing), 0.2)
        brush.drawn.line(curve, brush.color(skin * 0.6), 0.026)
        brush.reach("nose", curve)
        hole = brush.at((s * 0.48 * wide, base + 0.012), 0.22)
        brush.drawn.ellipse(hole, (0.055 * flare, 0.026 * flare), brush.color(skin * 0.26), -s * 14)


def _redden(brush: Brush, amount: float) -> None:
    base, _ = _nose(brush, brush.pose.units)
    center = brush.at((0, base - 0.1), 0.2)
    view, _ = brush.drawn.view(center - 0.3, center + 0.3)
    brush.reach("nose", [center - 0.24, center + 0.24])
    height, width = view.image.shape[:2]
    middle = view.pixels(center)
    dx = (np.arange(width) - middle[0])[None] / view.scale
    dy = (np.arange(height) - middle[1])[:, None] / view.scale
    weight = np.exp(-(dx**2 + dy**2) / (2 * 0.1**2)) * np.clip(amount, 0, 1.2)
    gains = np.stack([1 + 0.04 * weight, 1 - 0.3 * weight, 1 - 0.24 * weight], axis=-1)
    view.image[:] = np.minimum(view.image * gains, 255).astype(np.uint8)
