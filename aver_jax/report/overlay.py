"""Explained video frames: the heat map over the face, the label and the probabilities beside it.

Pixel coordinates follow the prepared record: x0, y0, x1, y1 in source pixels, edges, not centres.
A heat map [h, w] covers exactly the square region that the model saw. It is enlarged, and
interpolated between the explained frames, for display only: the measured values are the maps
themselves.
"""

import functools

import cv2
import numpy as np

from aver_jax.report import draw_text

SHORT_SIDE = 480
LONG_SIDE = 1280
LEAST_SIDE = 400
BACKGROUND = (18, 21, 28)
MAX_BARS = 10
ALPHA = 0.8
GREY = 0.8

_TEXT = (240, 242, 246)
_MUTED = (150, 158, 172)
_TRACK = (42, 48, 60)
_BAR = (96, 108, 130)
_ACCENT = (255, 176, 59)
_GOOD = (92, 200, 150)
# Of the panel, in its units: the margin, and the size of most letters.
_PAD, _SMALL = 22, 13
_SCALED = "relevance{}, scaled by itself"


def square_region(box, margin: float) -> np.ndarray:
    """Returns the square around a face box that is cropped for the model.

    Args:
      box: float [4], x0, y0, x1, y1 in source pixels.
      margin: side of the square in units of the longer side of the box.

    Returns:
      float64 [4]; may reach beyond the frame.
    """
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    half = margin * max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return np.array([x - half, y - half, x + half, y + half])


def heat_at(time: float, frame_times, maps) -> np.ndarray:
    """Returns the heat map to show at one moment: linear in time between the explained frames.

    Before the first and after the last explained frame the nearest map is held. For display only.

    Args:
      time: seconds.
      frame_times: float [T], ascending seconds of the explained frames.
      maps: float [T, h, w].

    Returns:
      float [h, w].
    """
    times, maps = np.asarray(frame_times, np.float64), np.asarray(maps)
    after = int(np.clip(np.searchsorted(times, time), 1, max(len(times) - 1, 1)))
    if len(times) == 1:
        return maps[0]
    span = times[after] - times[after - 1]
    share = np.clip((time - times[after - 1]) / span, 0.0, 1.0) if span > 0 else 1.0
    return (1 - share) * maps[after - 1] + share * maps[after]


def heat_overlay(frame, heat, alpha: float = ALPHA) -> np.ndarray:
    """Blends a heat map over an image that it covers exactly.

    The image turns nearly grey, so that colour means relevance and nothing else (skin is as warm
    as the map). Colours rise in lightness with relevance (inferno), and so does the opacity: the
    face stays visible everywhere.

    Args:
      frame: uint8 [H, W, 3] RGB.
      heat: float [h, w] in [0, 1].
      alpha: opacity of the highest relevance.

    Returns:
      uint8 [H, W, 3] RGB.
    """
    height, width = frame.shape[:2]
    heat = np.asarray(heat, np.float32)
    smooth = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    colors = heat_colors(smooth).astype(np.float32)
    opacity = (alpha * smooth**0.7)[..., None]
    grey = np.asarray(frame, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    dull = GREY * grey[..., None] + (1 - GREY) * frame
    return np.rint(dull * (1 - opacity) + colors * opacity).astype(np.uint8)


def heat_colors(heat) -> np.ndarray:
    """Returns colours uint8 [..., 3] RGB of heat [...] in 0..1: inferno without its black end."""
    table = _heat_table()
    return table[np.rint(np.asarray(heat) * 255).astype(np.uint8)]


def draw_frame(
    frame,
    region,
    heat,
    label: str,
    classes,
    probabilities,
    *,
    truth: str | None = None,
    alpha: float = ALPHA,
    time: float | None = None,
    moments=None,
    branch_predictions=(),
    window=None,
    scale: bool | None = None,
    flat: str = "",
    explained: str = "",
) -> np.ndarray:
    """Returns one frame of an overlay video, with a panel of class probabilities on its right.

    Args:
      frame: uint8 [H, W, 3] RGB, any size.
      region: float [4], the crop's square in source pixels (`square_region`); may reach beyond
        the frame.
      heat: float [h, w] in [0, 1] over the region (`heat_at`), or None for no heat map.
      label: the predicted class.
      classes: C names.
      probabilities: float [C].
      truth: the true class, if known, shown below the label.
      alpha: opacity of the highest relevance.
      time: seconds of this frame; with `moments`, moves the marker of the time line.
      moments: (frame_times [T] s, relevance [T] in [0, 1]) of the explained frames, drawn as a
        time line.
      branch_predictions: (words, class, probability) of each branch with logits of its own, below
        the bars.
      window: (first, last, start, stop) seconds: the ends of the time line, and of what the model
        saw between them, marked where it is not all; default: from first to last of `moments`.
      scale: whether the panel has the scale of the heat map; default: where there is a heat map.
      flat: written instead of that scale, where the maps hold nothing.
      explained: the class that the maps explain, if it is not the predicted one.

    Returns:
      uint8 [h, w, 3] RGB; even sides, the same for all frames of one size; the picture's shorter
      side is at least 480 pixels unless its longer would exceed 1280.
    """
    height, width = frame.shape[:2]
    grown = _display_scale(height, width)
    shown_h, shown_w = _even(height * grown), _even(width * grown)
    shrinking = shown_w < width
    picture = cv2.resize(
        frame,
        (shown_w, shown_h),
        interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC,
    )
    stretch = np.array([shown_w / width, shown_h / height] * 2)
    if region is not None:
        corners = np.rint(np.asarray(region, np.float64) * stretch).astype(int)
        if heat is not None:
            _blend_region(picture, corners, heat, alpha)
        _draw_corners(picture, corners, max(1, round(min(shown_h, shown_w) / 300)))
    picture = _padded(picture)
    curve = None
    if moments is not None:
        curve = tuple(tuple(float(x) for x in part) for part in moments)
    scale = heat is not None if scale is None else scale
    panel, line = _panel(
        (picture.shape[0], min(picture.shape[:2]) / 480),
        label,
        tuple(classes),
        tuple(round(float(p), 4) for p in probabilities),
        truth,
        (flat or _SCALED.format(explained and f" of {explained}")) if scale else "",
        bool(flat),
        curve,
        window and tuple(float(x) for x in window),
        tuple((words, name, round(float(p), 4)) for words, name, p in branch_predictions),
    )
    if line is not None and time is not None:
        panel = panel.copy()
        _draw_cursor(panel, line, time)
    return np.concatenate([picture, panel], axis=1)


def _display_scale(height, width):
    grown = max(1.0, SHORT_SIDE / min(height, width))
    longest = max(height, width) * grown
    return grown * min(1.0, LONG_SIDE / longest)


def _padded(picture):
    """Pads a ribbon of a picture, so that the panel beside it stays readable."""
    height, width = picture.shape[:2]
    more_h, more_w = max(0, LEAST_SIDE - height), max(0, LEAST_SIDE - width)
    above, left = more_h // 2, more_w // 2
    return cv2.copyMakeBorder(
        picture, above, more_h - above, left, more_w - left, cv2.BORDER_CONSTANT, value=BACKGROUND
    )


def _even(size):
    return max(2, round(size / 2) * 2)


@functools.cache
def _heat_table():
    ramp = np.linspace(40, 250, 256).astype(np.uint8)[:, None]
    return cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[:, 0, ::-1].copy()


def _blend_region(picture, corners, heat, alpha):
    x0, y0, x1, y1 = corners
    height, width = picture.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left >= right or top >= bottom:
        return
    # The square may reach beyond the frame: the map is laid over all of it, then cut.
    square = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    inside = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    square[inside] = picture[top:bottom, left:right]
    picture[top:bottom, left:right] = heat_overlay(square, heat, alpha)[inside]


def _draw_corners(picture, corners, thickness):
    x0, y0, x1, y1 = (int(c) for c in corners)
    arm = max(4, (x1 - x0) // 10)
    for x, dx in ((x0, arm), (x1 - 1, -arm)):
        for y, dy in ((y0, arm), (y1 - 1, -arm)):
            for end in ((x + dx, y), (x, y + dy)):
                cv2.line(picture, (x, y), end, (0, 0, 0), thickness + 2, cv2.LINE_AA)
            for end in ((x + dx, y), (x, y + dy)):
                cv2.line(picture, (x, y), end, (255, 255, 255), thickness, cv2.LINE_AA)


@functools.lru_cache(maxsize=16)
def _panel(
    size, label, classes, probabilities, truth, scale, flat, curve, window, branch_predictions
):
    """Draws the part beside the picture; returns its timeline's (x0, x1, y0, y1, t0, t1) too."""
    height, unit = size
    width = _even(300 * unit)
    pad, small, big = _PAD * unit, _SMALL * unit, 34 * unit
    panel = np.empty((height, width, 3), np.uint8)
    panel[:] = BACKGROUND
    pen = draw_text.Pen(panel)
    pen.text((pad, 30 * unit), "predicted", small, _MUTED)
    fitted = pen.fitting(label, big, width - 2 * pad, bold=True)
    pen.text((pad, 66 * unit), label, fitted, _TEXT, bold=True)
    if truth:
        right = truth == label
        pen.text((pad, 90 * unit), f"true label {truth}", small, _GOOD if right else _ACCENT)
    below = (118 if scale or curve else 20) + (
        8 + 20 * len(branch_predictions) if branch_predictions else 0
    )
    bottom = height - below * unit
    _draw_bars(pen, classes, probabilities, label, unit, width, bottom)
    for place, (words, name, probability) in enumerate(branch_predictions):
        y = bottom + (20 * place + 18) * unit
        pen.text((pad, y), words, 11 * unit, _MUTED)
        text = f"{name} {100 * probability:.0f}%"
        room = width - 2 * pad - pen.width(words, 11 * unit) - 10 * unit
        fitted = pen.fitting(text, small, room)
        pen.text((width - pad - pen.width(text, fitted), y), text, fitted, _TEXT)
    line = None
    if curve:
        window = window or (curve[0][0], curve[0][-1]) * 2
        first, last, start, stop = window
        words = "explained frames"
        if _is_cut(window):
            words += f": {start:.1f} to {stop:.1f} s of {last - first:.1f} s"
        fitted = pen.fitting(words, 11 * unit, width - 2 * pad)
        pen.text((pad, height - 98 * unit), words, fitted, _MUTED)
        area = (pad, width - pad, height - 92 * unit, height - 58 * unit)
        line = _draw_curve(pen, curve, window, area)
    if scale and flat:
        pen.text((pad, height - 30 * unit), scale, small, _TEXT)
    elif scale:
        pen = _draw_scale(pen, scale, unit, width, height)
    panel = pen.image()
    panel.flags.writeable = False
    return panel, line


def _draw_bars(pen, classes, probabilities, label, unit, width, bottom):
    """Draws a bar for each class, of many classes for the likeliest, from below the label on."""
    pad, small, top = _PAD * unit, _SMALL * unit, 108 * unit
    order = range(len(classes))
    if len(classes) > MAX_BARS:
        order = np.argsort(probabilities)[::-1][:MAX_BARS]
    step = min(34 * unit, (bottom - top) / max(len(order), 1))
    names = max(pen.width(classes[i], small, bold=True) for i in order)
    names = min(names, 0.4 * width)
    left, right = pad + names + 10 * unit, width - pad - pen.width("100%", small) - 8 * unit
    for place, i in enumerate(order):
        middle = top + (place + 0.5) * step
        chosen = classes[i] == label
        tone = _TEXT if chosen else _MUTED
        text_size = pen.fitting(classes[i], small, names, bold=chosen)
        pen.text((pad, middle + 0.36 * small), classes[i], text_size, tone, bold=chosen)
        pen.bar((left, middle - 0.2 * step, right, middle + 0.2 * step), 1.0, _TRACK)
        color = _ACCENT if chosen else _BAR
        pen.bar((left, middle - 0.2 * step, right, middle + 0.2 * step), probabilities[i], color)
        share = f"{100 * probabilities[i]:.0f}%"
        end = width - pad - pen.width(share, small, bold=chosen)
        pen.text((end, middle + 0.36 * small), share, small, tone, bold=chosen)


def _draw_scale(pen, words, unit, width, height):
    """Draws the scale of the heat map at the bottom; returns the pen to go on with."""
    pad, tiny = _PAD * unit, 11 * unit
    y = height - 34 * unit
    ramp = heat_colors(np.linspace(0, 1, max(2, int(width - 2 * pad)))[None])
    thick = max(2, int(7 * unit))
    panel = pen.image()
    panel[int(y) : int(y) + thick, int(pad) : int(pad) + ramp.shape[1]] = ramp
    pen = draw_text.Pen(panel)
    y, more = height - 12 * unit, "more"
    middle = (width - pen.width(words, tiny)) / 2
    pen.text((pad, y), "less", tiny, _MUTED)
    pen.text((middle, y), words, tiny, _MUTED)
    pen.text((width - pad - pen.width(more, tiny), y), more, tiny, _MUTED)
    return pen


def _is_cut(window):
    first, last, start, stop = window
    return start > first + 0.05 or stop < last - 0.05


def _draw_curve(pen, curve, window, area):
    x0, x1, y0, y1 = area
    times, values = (np.array(part) for part in curve)
    first, last, start, stop = window
    span = max(last - first, 1e-6)
    thick = max(2.0, (x1 - x0) / 60)

    def place(time):
        return x0 + (x1 - x0 - thick) * (min(max(time, first), last) - first) / span

    pen.line((x0, y1), (x1, y1), _TRACK, 1)
    if _is_cut(window):
        left, right = place(start), place(stop) + thick
        pen.box((left, y0, right, y1), _TRACK)
        for x in (left, right - 1):
            pen.box((x, y0 - 2, x + 1, y1 + 2), _MUTED)
    for t, value in zip(times, np.clip(values, 0, 1), strict=True):
        x = place(t)
        color = tuple(int(c) for c in heat_colors(value))
        pen.box((x, y1 - max(2.0, value * (y1 - y0)), x + thick, y1), color)
    return x0 + thick / 2, x1 - thick / 2, y0, y1, first, last


def _draw_cursor(panel, line, time):
    x0, x1, y0, y1, first, last = line
    share = np.clip((time - first) / max(last - first, 1e-6), 0, 1)
    x = round(x0 + share * (x1 - x0))
    cv2.line(panel, (x, round(y0) - 3), (x, round(y1) + 3), _TEXT, 1, cv2.LINE_AA)
