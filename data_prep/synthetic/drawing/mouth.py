"""The mouth of one frame: lips, teeth and tongue, driven by action units and by speech."""

from collections.abc import Callable

import cv2
import numpy as np

from data_prep.synthetic.drawing.canvas import Canvas, shifted, spline

_T = np.linspace(-1.0, 1.0, 15)
_DEPTH = 0.17


def _curves(brush, pose) -> dict[str, np.ndarray]:
    """Returns the edges of the lips, each [15, 2] from left to right, before parallax."""
    who, u = brush.who, pose.units
    speech, rounded = pose.speech, pose.rounded
    gap = 0.12 * speech + 0.1 * u["AU25"] + 0.36 * u["AU26"] + 0.05 * u["AU12"]
    # Pressed lips and a raised chin hold the mouth shut against speech.
    gap *= 1 - 0.35 * max(0.0, u["AU24"]) - 0.25 * max(0.0, u["AU17"])
    middle = who.mouth_height
    half = who.mouth_width * (
        1 + 0.36 * u["AU12"] + 0.34 * u["AU20"] - 0.16 * u["AU24"] - 0.24 * rounded
        - 0.12 * u["AU26"] + 0.06 * u["AU15"] - 0.08 * u["AU17"]
    )  # fmt: skip
    corner = middle - 0.24 * u["AU12"] + 0.22 * u["AU15"] + 0.07 * u["AU20"] + 0.03 * u["AU10"]
    top = (
        middle - 0.3 * gap - 0.14 * u["AU10"] + 0.05 * u["AU12"] - 0.07 * u["AU15"]
        - 0.05 * u["AU17"]
    )  # fmt: skip
    low = (
        top + gap + 0.11 * u["AU10"] + 0.04 * u["AU12"] + 0.07 * u["AU16"]
        + 0.02 * u["AU20"]
    )  # fmt: skip
    arch_top = 1 - np.abs(_T) ** (2.0 + 1.6 * max(0.0, u["AU10"]))
    arch_low = 1 - np.abs(_T) ** (2.0 + 1.2 * max(0.0, u["AU20"] + u["AU16"]))
    x = half * _T
    inner_top = corner + (top - corner) * arch_top
    inner_low = np.maximum(corner + (low - corner) * arch_low, inner_top)
    thin = np.clip(1 - 0.62 * u["AU24"] - 0.22 * u["AU12"] - 0.25 * u["AU20"], 0.2, 1.2)
    pout = 1 + 0.25 * u["AU17"] + 0.15 * rounded
    bow = (1 - np.abs(_T) ** 2.2) * (1 - 0.3 * np.exp(-((_T / 0.17) ** 2)))
    outer_top = inner_top - 0.08 * who.lip_fullness * thin * bow
    outer_low = inner_low + 0.115 * who.lip_fullness * thin * pout * (1 - np.abs(_T) ** 2.4)
    names = ("outer_top", "inner_top", "inner_low", "outer_low")
    rows = (outer_top, inner_top, inner_low, outer_low)
    return {n: brush.at(np.stack([x, y], axis=1), _DEPTH) for n, y in zip(names, rows, strict=True)}


def _shade(brush, pose, edges: dict[str, np.ndarray]) -> None:
    u = pose.units
    low, left, right = edges["outer_low"][7], edges["inner_top"][0], edges["inner_top"][-1]
    width = 0.55 * (right[0] - left[0])
    under = low + np.array([(-0.35 * width, 0.05), (0, 0.065), (0.35 * width, 0.05)])
    brush.shade("mouth", under, -0.16 - 0.2 * u["AU17"], 0.06)
    if u["AU17"] > 0.05:  # the dimpled chin
        brush.dab("mouth", shifted(low, 0, 0.2), (0.15, 0.07), 0.1 * u["AU17"])
        for dx in (-0.07, 0.0, 0.07):
            brush.dab(
                "mouth", shifted(low, dx, 0.2 + 0.3 * abs(dx)), (0.02, 0.02), -0.2 * u["AU17"]
            )
    top = edges["outer_top"][7]
    for s in (-1, 1):
        brush.shade(
            "mouth", [shifted(top, s * 0.05, -0.015), shifted(top, s * 0.04, -0.1)], -0.07, 0.03
        )
        corner = right if s > 0 else left
        brush.dab("mouth", shifted(corner, s * 0.025, 0.0), (0.04, 0.035), -0.2)
        smile, sneer, drop = max(0.0, u["AU12"]), max(0.0, u["AU10"]), max(0.0, u["AU15"])
        aged = max(0.0, brush.who.age - 35) / 250
        fold = spline(
            [
                (s * 0.36, 0.56),
                (corner[0] + s * (0.1 + 0.02 * smile), corner[1] - 0.1),
                (corner[0] + s * (0.1 - 0.02 * drop), corner[1] + 0.02 + 0.06 * smile),
            ]
        )
        brush.shade("mouth", fold, -(aged + 0.3 * smile + 0.33 * sneer + 0.05 * drop), 0.042)
        if drop > 0.05:
            line = [shifted(corner, s * 0.04, 0.03), shifted(corner, s * 0.07, 0.17)]
            brush.shade("mouth", line, -0.34 * drop, 0.04)
        if u["AU20"] > 0.05:
            line = spline([shifted(corner, s * 0.09, -0.1), shifted(corner, s * 0.13, 0.0),
                           shifted(corner, s * 0.09, 0.1)])  # fmt: skip
            brush.shade("mouth", line, -0.3 * u["AU20"], 0.035)


def _cavity(brush, edges: dict[str, np.ndarray], u: dict[str, float]) -> None:
    opening = np.concatenate([edges["inner_top"], edges["inner_low"][-2:0:-1]])
    height = float(edges["inner_low"][7, 1] - edges["inner_top"][7, 1])
    if height < 0.012:
        return
    view, _ = brush.drawn.view(opening.min(axis=0) - 0.03, opening.max(axis=0) + 0.03)
    inside = np.empty_like(view.image)
    inside[:] = brush.color((62, 20, 24))
    canvas = Canvas(inside, view.scale, view.origin)
    if height > 0.12:
        low = edges["inner_low"][7]
        canvas.ellipse(shifted(low, 0, 0.02), (0.2, 0.35 * height), brush.color((172, 78, 82)))
    ivory = brush.color((232, 226, 212), 0.66 + 0.3 * sum(brush.who.skin) / 600)
    top, low = edges["inner_top"][1:-1], edges["inner_low"][1:-1]
    bared = min(0.15, 0.055 + 0.11 * max(u["AU10"], u["AU12"], 0.0))
    teeth = np.concatenate([shifted(top, 0, -0.02), (top * (0.94, 1) + (0, bared))[::-1]])
    canvas.fill(teeth, ivory)
    if u["AU16"] > 0.1:
        canvas.fill(
            np.concatenate([shifted(low, 0, 0.02), (shifted(low, 0, -0.06 * u["AU16"]))[::-1]]),
            ivory,
        )
    canvas.line(shifted(top, 0, 0.008), brush.color((120, 70, 66)), 0.02)
    mask = np.zeros(inside.shape[:2], np.uint8)
    Canvas(mask, view.scale, view.origin).fill(opening, 255)
    cv2.copyTo(inside, cv2.threshold(mask, 110, 255, cv2.THRESH_BINARY)[1], view.image)


def paint_mouth(brush, pose) -> Callable[[], None]:
    """Lays the soft shades now; the returned call draws lips and teeth once they are applied."""
    edges = _curves(brush, pose)
    _shade(brush, pose, edges)

    def draw() -> None:
        who, u = brush.who, pose.units
        lips = np.asarray(who.lips)
        upper = np.concatenate([edges["outer_top"], edges["inner_top"][::-1]])
        lower = np.concatenate([edges["inner_low"], edges["outer_low"][::-1]])
        brush.drawn.fill(upper, brush.color(lips, 0.84))
        brush.drawn.fill(lower, brush.color(lips, 1.0))
        shine = edges["inner_low"][5:10] * 0.45 + edges["outer_low"][5:10] * 0.55
        if edges["outer_low"][7, 1] - edges["inner_low"][7, 1] > 0.06:
            gloss = lips * 0.8 + 255 * 0.2
            brush.drawn.line(shifted(shine, 0.04 * brush.light.x, 0), brush.color(gloss), 0.022)
        _cavity(brush, edges, u)
        seam = brush.color(lips * 0.36)
        brush.drawn.line(edges["inner_top"], seam, 0.026)
        brush.reach("mouth", edges["outer_top"])
        brush.reach("mouth", edges["outer_low"])

    return draw
