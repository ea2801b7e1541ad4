"""One face followed through time: by where it is, how it moves and what it looks like."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.faces.boxes import overlap, squares
from data_prep.faces.colours import SAME, same_colours
from data_prep.faces.detector import Detector
from data_prep.faces.looks import Look, look
from data_prep.frame_times import lasting

# A face that is seen for less, or for less than half of a shorter clip, is no track: a cascade now
# and then takes a wall for one.
LEAST_FACE_SECONDS = 0.25
# From one look to the next a face moves by less than this share of its side, or it must look the
# same to be taken for the same.
_NEAR, _FAR = 0.7, 3.0
_SIZES = (0.6, 1 / 0.6)
# Less like it than this a face at the same place is another one.
_NOT_ANOTHER = 0.55
# Two heads do not cover each other by more than this.
_ONE_HEAD = 0.3
# A stretch without a detection in which the picture shows the face where it should be.
_BLINK_SECONDS = 0.7
# Mean change of grey levels inside a box from look to look: a photograph has only that of coding.
_STILL = 1.5


@dataclass(frozen=True)
class Track:
    """One face through a clip of F frames.

    boxes: float32 [F, 4], square, smoothed (x0, y0, x1, y1) in source pixels; may leave the frame.
        Where the face is not known it is the box that is nearest in time.
    found: bool [F], whether the face is known to be in that box.
    seconds: for how long it is.
    moves: False if nothing about it does, as in a photograph.
    """

    boxes: np.ndarray
    found: np.ndarray
    seconds: float
    moves: bool


@dataclass
class _Piece:
    """Looks in which one face was detected, one after the other: (look, box float32 [4])."""

    hits: list[tuple[Look, np.ndarray]]

    @property
    def first(self) -> Look:
        return self.hits[0][0]

    @property
    def last(self) -> Look:
        return self.hits[-1][0]


def follow_faces(
    frames: Sequence[np.ndarray],
    timestamps: np.ndarray,
    detector: Detector,
    prefer: str = "longest",
) -> list[Track]:
    """Returns the faces of a clip, the preferred one first.

    Faces that move come before those that do not.

    Args:
      frames: F uint8 arrays [H, W, 3], RGB.
      timestamps: float [F], ascending, seconds.
      detector: finds the faces of one frame.
      prefer: "longest", of equally long ones the larger, or "largest".
    """
    looks = look(frames, timestamps, detector)
    ranked = []
    for pieces in _joined(_linked(looks)):
        track = _track(pieces, looks, np.asarray(timestamps, np.float64))
        if track.seconds < min(LEAST_FACE_SECONDS, (timestamps[-1] - timestamps[0]) / 2):
            continue
        area = float(np.median([np.prod(box[2:] - box[:2]) for p in pieces for _, box in p.hits]))
        # Tracks that differ by a few frames are equally long.
        length = round(track.seconds / 0.2)
        order = (area, length) if prefer == "largest" else (length, area)
        ranked.append(((track.moves, *order), track))
    kept: list[Track] = []
    for _, track in sorted(ranked, key=lambda pair: pair[0], reverse=True):
        if not any(_one_head(track, other) for other in kept):
            kept.append(track)
    return kept


def _one_head(one: Track, other: Track) -> bool:
    """Returns whether two tracks are boxes around one head: a cascade may give it two."""
    both = np.flatnonzero(one.found & other.found)
    overlaps = [overlap(one.boxes[frame], other.boxes[frame]) for frame in both]
    return bool(overlaps) and float(np.median(overlaps)) > _ONE_HEAD


def _linked(looks: Sequence[Look]) -> list[_Piece]:
    """Links the boxes of successive looks by place, motion and colours."""
    pieces: list[_Piece] = []
    for current, previous in zip(looks, [None, *looks], strict=False):
        open_pieces = [p for p in pieces if p.last is previous]
        pairs = []
        for p, piece in enumerate(open_pieces):
            for b, box in enumerate(current.boxes):
                score = _likeness(piece, current, box)
                if score is not None:
                    pairs.append((score, p, b))
        free = set(range(len(current.boxes)))
        continued: set[int] = set()
        for _, p, b in sorted(pairs, reverse=True):
            if p not in continued and b in free:
                open_pieces[p].hits.append((current, current.boxes[b]))
                continued.add(p)
                free.remove(b)
        pieces += [_Piece([(current, current.boxes[b])]) for b in sorted(free)]
    return pieces


def _likeness(piece: _Piece, current: Look, box: np.ndarray) -> float | None:
    """Returns how well a box goes on a piece; None where it does not."""
    look_before, before = piece.hits[-1]
    (x, y, side), (bx, by, bside) = squares(np.stack([before, box]))
    if not _SIZES[0] < bside / side < _SIZES[1]:
        return None
    away = [np.hypot(bx - x, by - y)]
    if len(piece.hits) > 1:
        earlier, older = piece.hits[-2]
        ox, oy, _ = squares(older[None])[0]
        share = (current.time - look_before.time) / (look_before.time - earlier.time)
        away.append(np.hypot(bx - x - (x - ox) * share, by - y - (y - oy) * share))
    distance = min(away) / side
    same = same_colours(
        look_before.colours(before),
        current.colours(box),
    )
    near = distance < _NEAR and same > _NOT_ANOTHER
    if not near and not (distance < _FAR and same > SAME):
        return None
    return same - distance


def _joined(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Joins pieces of one face across gaps and cuts: those that look the same, one at a time."""
    ordered = sorted(pieces, key=lambda piece: piece.first.time)
    looks_like = [
        np.mean([seen.colours(box) for seen, box in piece.hits], axis=0) for piece in ordered
    ]
    chains: list[list[int]] = []
    for number, piece in enumerate(ordered):
        best, chosen = SAME, None
        for chain in chains:
            last = ordered[chain[-1]]
            if last.last.time >= piece.first.time:
                continue
            sides = [
                float(np.median([squares(b[None])[0, 2] for _, b in p.hits])) for p in (last, piece)
            ]
            same = same_colours(looks_like[chain[-1]], looks_like[number])
            if _SIZES[0] < sides[0] / sides[1] < _SIZES[1] and same > best:
                best, chosen = same, chain
        if chosen is None:
            chains.append([number])
        else:
            chosen.append(number)
    return [[ordered[number] for number in chain] for chain in chains]


def _track(pieces: Sequence[_Piece], looks: Sequence[Look], times: np.ndarray) -> Track:
    """Returns the boxes of every frame and where they are known."""
    runs = _known_runs(pieces, looks)
    boxes = np.zeros((len(times), 3))
    distance = np.full(len(times), np.inf)
    found = np.zeros(len(times), bool)
    for hits in runs:
        at = np.array([hit.time for hit, _ in hits])
        path = _smoothed_path(at, squares(np.stack([box for _, box in hits])), times)
        away = np.maximum(at[0] - times, times - at[-1])
        nearer = away < distance
        boxes[nearer], distance[nearer] = path[nearer], away[nearer]
        found |= away <= 1e-6
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    seconds = float(lasting(times)[found].sum())
    return Track(corners.astype(np.float32), found, seconds, _moves(pieces))


def _known_runs(
    pieces: Sequence[_Piece], looks: Sequence[Look]
) -> list[list[tuple[Look, np.ndarray]]]:
    """Returns the hits of pieces; two become one run where the face was only missed between them.

    That is: for a moment, at one place, with the colours of the face there.
    """
    runs = [list(pieces[0].hits)]
    for piece in pieces[1:]:
        (before, box), (after, other) = runs[-1][-1], piece.hits[0]
        between = [look for look in looks if before.time < look.time < after.time]
        middle, known = (box + other) / 2, before.colours(box)
        missed = (
            after.time - before.time < _BLINK_SECONDS
            and overlap(box, other) > 0.5
            and all(same_colours(known, look.colours(middle)) > SAME for look in between)
        )
        if missed:
            runs[-1] += piece.hits
        else:
            runs.append(list(piece.hits))
    return runs


def _smoothed_path(at: np.ndarray, found: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns float64 [F, 3], centre and side at every time, linear between looks and smoothed.

    The Gaussian is half as wide as looks are apart there; beyond the first and last look the path
    is mirrored through its end, so that a face in motion does not lag there.

    Args:
      at: float [n], seconds of the looks.
      found: float [n, 3] of `squares`.
      times: float [F], seconds.
    """
    found = found.copy()
    if len(found) >= 3:
        # One detection of another size is an error of the detector, not a step of the actor.
        padded = np.pad(found[:, 2], 1, mode="edge")
        found[:, 2] = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    if len(at) < 2:
        return np.tile(found[0], (len(times), 1))
    # Steps of a face on its way are no jitter.
    steps = np.hypot(*np.diff(found[:, :2], axis=0).T) / found[:-1, 2]
    gaps = np.where(steps < 0.25, np.diff(at), 0.0)
    sigma = np.interp(times, (at[1:] + at[:-1]) / 2, gaps) / 2
    offsets = np.linspace(-3, 3, 25)
    weights = np.exp(-0.5 * offsets**2)
    weights /= weights.sum()
    inside = np.clip(times, at[0], at[-1])
    moments = inside[:, None] + sigma[:, None] * offsets
    path = []
    for values in found.T:
        sampled = np.interp(moments, at, values)
        early, late = moments < at[0], moments > at[-1]
        sampled[early] = 2 * values[0] - np.interp(2 * at[0] - moments[early], at, values)
        sampled[late] = 2 * values[-1] - np.interp(2 * at[-1] - moments[late], at, values)
        path.append(sampled @ weights)
    return np.stack(path, axis=1)


def _moves(pieces: Sequence[_Piece]) -> bool:
    """Returns whether a face moves from place to place, or in itself."""
    changes = []
    hits = [hit for piece in pieces for hit in piece.hits]
    for (one, box), (other, next_box) in itertools.pairwise(hits):
        if overlap(box, next_box) < 0.6:
            return True
        changes.append(_change(one, other, (box + next_box) / 2))
    return not changes or float(np.median(changes)) > _STILL


def _change(one: Look, other: Look, box: np.ndarray) -> float:
    """Returns the mean change of grey levels inside a box between two looks."""
    x0, y0, x1, y1 = (int(v) for v in np.clip(box * one.scale, 0, None))
    a, b = (
        cv2.cvtColor(look.picture[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY).astype(np.int16)
        if min(look.picture[y0:y1, x0:x1].shape[:2]) > 0
        else np.zeros((1, 1), np.int16)
        for look in (one, other)
    )
    return float(np.abs(a - b).mean())
