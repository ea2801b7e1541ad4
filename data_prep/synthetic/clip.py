"""One clip rendered: the face's frames, the voice, and the truth about both."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.synthetic.drawing.face import REGIONS, FacePainter, Pose
from data_prep.synthetic.drawing.glasses import make_glasses
from data_prep.synthetic.drawing.head import make_head
from data_prep.synthetic.drawing.scene import (
    UNIT,
    Stage,
    frame_matrix,
    make_light,
    make_motion,
    make_stage,
)
from data_prep.synthetic.expression import CARRIERS, blinks, unit_weights
from data_prep.synthetic.habits import make_rest
from data_prep.synthetic.identity import make_identity
from data_prep.synthetic.plan import STRENGTH, ClipPlan, Knobs, shown_emotion
from data_prep.synthetic.sound.recording import recorded
from data_prep.synthetic.sound.speech import STEP, articulate
from data_prep.synthetic.sound.voice import SAMPLE_RATE, mixed_prosody, synthesize
from data_prep.synthetic.timing import Window, draw_window, fidgets
from data_prep.synthetic.variation import NONE, Variation

# A voice shows its label in at least this share of the speech, if the label's span is as long.
_LEAST_HEARD = 0.25


@dataclass(frozen=True)
class Format:
    """Of every clip: side of the frames in pixels, frames per second, mean length in seconds."""

    size: int = 160
    fps: int = 25
    seconds: float = 2.0


class Clip:
    """A planned clip, ready to be rendered.

    Attributes:
      times: float64 [F], seconds of the frames.
      pcm: int16 [S], mono, 16 kHz.
      boxes: float32 [F, 4, 4], filled while `frames` is iterated: x0 y0 x1 y1 in pixels of
        `face.REGIONS`.
      crf: H.264 quality that the clip is to be written with.
      truth: the clip's row of the truth table.
    """

    def __init__(
        self, plan: ClipPlan, seed: int, form: Format, knobs: Knobs, variation: Variation = NONE
    ):
        # One stream per subject: the label changes no draw of light, motion, room or sentence.
        streams = map(np.random.default_rng, np.random.SeedSequence(plan.seed).spawn(13))
        timing, face, voice, light, motion, room, head, noise, *streams = streams
        rest, moves, recording, camera, effort = streams
        self._plan, self._form, self._knobs = plan, form, knobs
        self._parts = CARRIERS[knobs.carrier] if "face" in plan.carriers else ()
        self._who = who = make_identity(seed, plan.actor, variation.beards)
        frames = round(form.seconds * timing.uniform(0.92, 1.08) * form.fps)
        seconds = frames / form.fps
        self.times = np.arange(frames) / form.fps
        face_share, voice_share = _effort(plan.level, variation.intensity, effort)
        resting = make_rest(seed, plan.actor, variation, rest)

        shows = [share * seconds for share in _span(knobs, timing)]
        seen = draw_window(*shows, variation.timing, timing)
        self._envelope = seen(self.times)
        controls = (np.arange(round(seconds / STEP)) + 0.5) * STEP
        spoken = {e: s * voice_share for e, s in plan.voice.items()}
        shown = mixed_prosody(spoken, resting.voice, voice)
        length = seconds * timing.uniform(0.66, 0.74) / resting.voice.rate
        length = min(length, 0.88 * seconds)
        lead = timing.uniform(0.25, 0.6) * (seconds - length)
        span = None if knobs.span in ((0.0, 1.0), 1.0) else shows
        plain = lead, lead + length  # the speech at the speaker's own tempo
        heard = _heard(span, plain, variation.timing, deepcopy(timing))
        # The whole speech has one rate. It departs from the speaker's own by the share of the
        # clip, not of the speech, in which the voice is coloured: never by all of the emotion's
        # change. It moves the end of the speech, not the end of the clip.
        rate = 1 + (shown.rate / resting.voice.rate - 1) * (heard.stop - heard.start) / seconds
        length = min(length / rate, 0.97 * seconds - lead)
        # Unlike a face, a plain corpus' voice has its colour from the first sound to the last,
        # unless the label is to show in a part of the clip alone.
        constant = span is None and not variation.timing
        if constant or span is not None:  # the same window, drawn for the speech as it came out
            heard = _heard(span, (lead, lead + length), variation.timing, timing)
        share = np.ones_like(controls) if constant else heard(controls)
        # The emotion's tempo would show the label in a mouth that is not to carry it: there the
        # lips move at the speaker's own.
        lips = None
        if "mouth" not in self._parts:
            lips = articulate(plan.sentence, lead, plain[1] - lead, seconds, deepcopy(voice))
        said = articulate(plan.sentence, lead, length, seconds, voice)
        samples = round(seconds * SAMPLE_RATE)
        sound = synthesize(who, said, resting.voice, shown, share, samples, voice)
        self.pcm = recorded(sound, variation, recording)
        lips = lips or said
        self._opening = np.interp(self.times, controls, lips.opening)
        self._rounding = np.interp(self.times, controls, lips.rounding)

        self._units = unit_weights(
            {e: s * face_share * who.expressiveness for e, s in plan.face.items()},
            knobs.carrier,
            face,
        )
        self._resting = resting.units
        self._fidgets = fidgets(self.times, variation.fidgets, moves)
        self._talk = 1 + variation.talk * camera.uniform(0.1, 0.7)
        self._asymmetry = face.uniform(0.88, 1.08, 2)
        self._shut = blinks(self.times, face)
        self._motion = make_motion(self.times, variation.pose, motion)
        self._light = make_light(who, light, variation.side_light)
        self._glasses = make_glasses(seed, plan.actor, variation.glasses)
        self._stage = make_stage(who, self._light, form.size, room)
        self._head = make_head(who, self._light, UNIT * form.size, head)
        self._noise = noise
        blurred, sharpness, compressed, quality = camera.uniform(size=4)
        self._blur = (0.5 + 0.7 * sharpness) * form.size / 160 * (blurred < variation.blur)
        self.crf = round(26 + 8 * quality) if compressed < variation.compression else 18
        self.boxes = np.zeros((frames, len(REGIONS), 4), np.float32)
        self.truth = self._truth_row(seen, heard, face_share, voice_share, seconds)

    def _truth_row(
        self, seen: Window, heard: Window, face_share: float, voice_share: float, seconds: float
    ) -> dict:
        plan, form = self._plan, self._form
        return {
            "clip_id": plan.clip_id,
            "file": plan.file,
            "actor": plan.actor_name,
            "sex": self._who.sex.lower(),
            "age": self._who.age,
            "label": plan.label,
            "intensity": plan.level,
            "strength": STRENGTH[plan.level] if plan.label != "NEU" else 0.0,
            "sentence": plan.sentence,
            "condition": plan.condition,
            "modalities": "+".join(plan.carriers),
            "face_emotion": shown_emotion(plan.face),
            "voice_emotion": shown_emotion(plan.voice),
            "face_strength": f"{face_share * sum(plan.face.values()):.3f}",
            "voice_strength": f"{voice_share * sum(plan.voice.values()):.3f}",
            "regions": "+".join(self._parts),
            "label_start": f"{seen.half[0]:.3f}",
            "label_end": f"{seen.half[1]:.3f}",
            "voice_start": f"{heard.half[0]:.3f}",
            "voice_end": f"{heard.half[1]:.3f}",
            "seconds": f"{seconds:.3f}",
            "fps": form.fps,
            "frames": len(self.times),
            "width": form.size,
            "height": form.size,
        }

    def frames(self) -> Iterator[np.ndarray]:
        """Renders frame after frame: uint8 [size, size, 3], RGB."""
        size, head, motion = self._form.size, self._head, self._motion
        painter = FacePainter(self._who, head, self._light, self._asymmetry, self._glasses)
        grain = self._noise.normal(0, 1.6, (size + 16, size + 16, 1)).astype(np.int16)
        stage = self._stage
        still = _on_body(stage.room, stage)
        whole_face = len(CARRIERS[self._knobs.carrier]) == 3
        for i, level in enumerate(self._envelope):
            units = {
                unit: _muscle(
                    self._resting[unit]
                    + level * weight
                    + (self._fidgets[unit][i] if unit in self._fidgets else 0.0)
                )
                for unit, weight in self._units.items()
            }
            speech = self._talk * float(self._opening[i])
            # The chin lies outside the mouth's box, so that no emotion drops it when parts carry
            # alone. Speech moves it with the lips: at the voice's tempo where the mouth carries.
            jaw = 0.5 * speech + (units["AU26"] if whole_face else 0.0)
            pose = Pose(
                units=units,
                shut=float(self._shut[i]),
                speech=speech,
                rounded=float(self._rounding[i]),
                jaw=jaw,
                yaw=float(motion.yaw[i]),
                pitch=float(motion.pitch[i]),
            )
            image, mask, boxes = painter.paint(pose)
            matrix = frame_matrix(motion, i, size, head.scale, head.origin)
            frame = still
            if head.back is not None:  # hair falls behind the neck
                frame = _over(stage.room, head.back, head.back_mask, matrix)
                frame = _on_body(frame, stage)
            frame = _over(frame, image, mask, matrix)
            dy, dx = self._noise.integers(0, 16, 2)
            moved = cv2.merge([grain[dy : dy + size, dx : dx + size]] * 3)
            self.boxes[i] = _frame_boxes(boxes, matrix, size)
            if self._blur:
                frame = cv2.GaussianBlur(frame, (0, 0), self._blur)
            yield cv2.add(frame, moved, dtype=cv2.CV_8U)


def _muscle(pull: float) -> float:
    """Returns an action unit that several causes pull at: no muscle moves far beyond its full
    movement."""
    if pull <= 0.8:
        return max(-1.2, float(pull))
    return 0.8 + 0.35 * float(np.tanh((pull - 0.8) / 0.35))


def _effort(level: str, intensity: float, rng: np.random.Generator) -> tuple[float, float]:
    """Returns what the strength shown in face and in voice is multiplied with.

    Weak levels become weaker (their strength's power 1 + half of `intensity`), and a person shows
    some emotions more in the face and some more in the voice.
    """
    weaker = STRENGTH[level] ** (0.5 * intensity)
    face, voice = 1 - intensity * rng.uniform(-0.05, 0.2, 2)
    return weaker * float(face), weaker * float(voice)


def _span(knobs: Knobs, rng: np.random.Generator) -> tuple[float, float]:
    """Returns where the expression may show, as shares of the clip."""
    if isinstance(knobs.span, tuple):
        start, stop = knobs.span
    else:
        start = rng.uniform(0, 1 - knobs.span)
        stop = start + knobs.span
    late, early = rng.uniform(0, 0.08, 2) * (stop - start)
    return start + late, stop - early


def _heard(
    span: list[float] | None,
    speech: tuple[float, float],
    timing: float,
    rng: np.random.Generator,
) -> Window:
    """Returns when the voice is coloured, always within `speech`.

    Without a `span` of the label: in a part of the speech, or with `timing` 0 in all of it, from
    the first sound on (a window without onset). All but `timing` in seconds.
    """
    if span is not None:
        return draw_window(*_spoken(span, speech), 0.0, rng)
    if not timing:
        return Window(*speech, 0.0, 0.0)
    return draw_window(*speech, timing, rng, shares=(0.5, 0.75))


def _spoken(span: list[float], speech: tuple[float, float]) -> tuple[float, float]:
    """Returns the part of `speech` within `span`, or the part next to it where the two share too
    little to be heard; (start, stop) in seconds."""
    start, stop = max(span[0], speech[0]), min(span[1], speech[1])
    least = min(_LEAST_HEARD * (speech[1] - speech[0]), span[1] - span[0])
    if stop - start < least:
        middle = (span[0] + span[1]) / 2
        start = min(max(middle - least / 2, speech[0]), speech[1] - least)
        stop = start + least
    return start, stop


def _over(frame: np.ndarray, image: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns `image`, premultiplied by `mask`, moved by `matrix` onto `frame`; uint8."""
    size = frame.shape[1::-1]
    moved = cv2.warpPerspective(image, matrix, size)
    around = 255 - cv2.warpPerspective(mask, matrix, size)
    return cv2.add(cv2.multiply(frame, cv2.merge([around] * 3), scale=1 / 255), moved)


def _on_body(frame: np.ndarray, stage: Stage) -> np.ndarray:
    return cv2.add(cv2.multiply(frame, stage.around, scale=1 / 255), stage.body)


def _frame_boxes(boxes: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Returns upright boxes [n, 4] around the turned `boxes` [n, 2, 2], cut to the frame."""
    (x0, y0), (x1, y1) = boxes[:, 0].T, boxes[:, 1].T
    corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], axis=1).reshape(-1, 4, 2)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    moved = moved[..., :2] / moved[..., 2:]
    return np.clip(np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1), 0, size)
