"""The drawn face: parts move inside their boxes alone, and nothing else tells the emotion."""

import dataclasses

import numpy as np
import pytest

from data_prep.faces import load_detector
from data_prep.synthetic.clip import Clip, Format
from data_prep.synthetic.drawing.face import REGIONS
from data_prep.synthetic.expression import CARRIERS, EMOTIONS, PARTS, unit_weights
from data_prep.synthetic.plan import NAMINGS, Knobs, plan_corpus

SHORT = Format(size=160, fps=10, seconds=1.0)


def rendered(plan, **knobs):
    clip = Clip(plan, 0, SHORT, Knobs(**knobs))
    return clip, np.stack(list(clip.frames())).astype(int)


def one_plan(label, actor=0):
    return next(p for p in plan_corpus(48, 4, 0) if p.label == label and p.actor == actor + 1)


@pytest.mark.parametrize("part", ["eyes", "nose", "mouth"])
@pytest.mark.parametrize("label", ["ANG", "DIS", "HAP"])
def test_a_part_that_carries_alone_changes_pixels_in_its_box_and_nowhere_else(part, label):
    plan = one_plan(label, actor=1)
    clip, frames = rendered(plan, carrier=part)
    neutral, rest = rendered(dataclasses.replace(plan, face={}), carrier=part)
    change = np.abs(frames - rest).max(axis=-1)
    apex = int(change.sum(axis=(1, 2)).argmax())
    assert change[apex].max() > 40
    region = REGIONS.index(part)
    low = np.floor(np.minimum(clip.boxes, neutral.boxes)[:, region, :2]).astype(int)
    high = np.ceil(np.maximum(clip.boxes, neutral.boxes)[:, region, 2:]).astype(int)
    for frame, (x0, y0), (x1, y1) in zip(change, low, high, strict=True):
        frame[y0:y1, x0:x1] = 0
    # Blurred shades reach beyond the box by a few pixels of at most 8 levels.
    assert change.max() <= 8


def test_light_room_head_and_timing_do_not_depend_on_the_face_shown():
    plan = one_plan("FEA")
    _, frames = rendered(plan)
    _, rest = rendered(dataclasses.replace(plan, face={}))
    change = np.abs(frames - rest).max(axis=-1)
    assert change.max() > 40
    assert change[:, :25].max() == change[:, -20:].max() == 0


def test_the_label_shows_only_within_its_span():
    plan = one_plan("SAD")
    clip, frames = rendered(plan, span=(0.5, 1.0))
    _, rest = rendered(dataclasses.replace(plan, face={}), span=(0.5, 1.0))
    change = np.abs(frames - rest).max(axis=(1, 2, 3))
    assert change[clip.times < 0.5 * len(clip.times) / SHORT.fps].max() == 0
    start, end = float(clip.truth["label_start"]), float(clip.truth["label_end"])
    inside = (clip.times > start) & (clip.times < end)
    assert inside.any()
    assert change[inside].min() > 20


def test_boxes_lie_in_the_frame_and_in_anatomical_order():
    for actor in range(4):
        clip, _ = rendered(one_plan("HAP", actor))
        boxes = clip.boxes
        assert boxes.min() >= 0
        assert boxes.max() <= SHORT.size
        assert (boxes[..., 2:] - boxes[..., :2]).min() > 8
        face, eyes, nose, mouth = boxes.transpose(1, 0, 2)
        middle = {n: b[:, 1] + b[:, 3] for n, b in zip("enm", (eyes, nose, mouth), strict=True)}
        assert (middle["e"] < middle["n"]).all()
        assert (middle["n"] < middle["m"]).all()
        for box in (eyes, nose, mouth):
            assert (box[:, :2] > face[:, :2] - 6).all()
            assert (box[:, 2:] < face[:, 2:] + 6).all()


def test_the_detector_finds_every_kind_of_face_around_its_true_place():
    detector = load_detector("haar")
    found = []
    for plan in plan_corpus(240, 20, 1)[::6]:
        clip = Clip(plan, 1, Format(fps=5, seconds=1.0), Knobs())
        frames = list(clip.frames())
        for frame, boxes in list(zip(frames, clip.boxes, strict=True))[1::2]:
            x, y = boxes[0].reshape(2, 2).mean(axis=0)
            hits = [b for b in detector(frame) if b[0] < x < b[2] and b[1] < y < b[3]]
            found.append(len(hits) >= 1)
    assert len(found) >= 75
    assert np.mean(found) >= 0.98


@pytest.mark.parametrize("carrier", list(CARRIERS))
@pytest.mark.parametrize("naming", list(NAMINGS))
def test_any_part_can_tell_all_emotions_apart(carrier, naming):
    rng = np.random.default_rng(0)
    shown = {
        label: np.array(list(unit_weights({label: 1.0}, carrier, rng).values()))
        for label in NAMINGS[naming]
    }
    labels = list(shown)
    for i, one in enumerate(labels):
        for other in labels[:i]:
            assert np.abs(shown[one] - shown[other]).max() > 0.25, (one, other)


def test_every_action_unit_of_an_emotion_belongs_to_a_part():
    units = {unit for part in PARTS.values() for unit in part}
    assert {unit for emotion in EMOTIONS.values() for unit in emotion} <= units
