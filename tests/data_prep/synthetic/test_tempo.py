"""The tempo of speech: lips that do not carry the label deny it, and the voice's label is heard."""

import dataclasses

import numpy as np
import pytest

from data_prep.synthetic import clip as clips
from data_prep.synthetic.clip import Clip, Format
from data_prep.synthetic.expression import CARRIERS
from data_prep.synthetic.plan import Knobs, plan_corpus
from data_prep.synthetic.sound.speech import SENTENCES, STEP
from data_prep.synthetic.variation import NONE, Variation

ALL = Variation()
FORM = Format(size=96, fps=25, seconds=2.0)
TRUTH_DIGITS = 0.0005  # truth.csv is rounded to a millisecond


def of_label(label, **changes):
    plan = next(p for p in plan_corpus(24, 4, 0) if p.label == "ANG")
    shown = {"label": label, "face": {label: 1.0}, "voice": {label: 1.0}}
    return dataclasses.replace(plan, **(shown | changes))


def lips(clip):
    return np.stack([clip._opening, clip._rounding])


@pytest.mark.parametrize("variation", [NONE, ALL], ids=["none", "all"])
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.3, 0.9)])
@pytest.mark.parametrize("carrier", list(CARRIERS))
def test_lips_move_alike_under_every_label_where_the_mouth_carries_none(carrier, span, variation):
    knobs = Knobs(carrier=carrier, span=span)
    sad, afraid = (Clip(of_label(e), 0, FORM, knobs, variation) for e in ("SAD", "FEA"))
    assert not np.array_equal(sad.pcm, afraid.pcm)
    assert np.array_equal(lips(sad), lips(afraid)) == ("mouth" not in CARRIERS[carrier])


@pytest.mark.parametrize("face", [{}, {"HAP": 0.6}], ids=["fuzzy", "conflict"])
def test_lips_of_a_face_without_the_label_move_as_with_a_neutral_voice(face):
    said = {"carriers": ("voice",), "face": face}
    made = [Clip(of_label(e, **said), 0, FORM, Knobs(), ALL) for e in ("SAD", "FEA")]
    made.append(Clip(of_label("NEU", voice={}, face=face), 0, FORM, Knobs(), ALL))
    for other in made[1:]:
        assert np.array_equal(lips(made[0]), lips(other))
    assert np.ptp(lips(made[0])[0]) > 0.5


def test_frames_of_a_face_that_shows_nothing_are_the_same_under_every_voice():
    form = dataclasses.replace(FORM, fps=6, seconds=1.2)
    said = {"carriers": ("voice",), "face": {}}
    sad, afraid = (
        np.stack(list(Clip(of_label(e, **said), 0, form, Knobs(), ALL).frames()))
        for e in ("SAD", "FEA")
    )
    assert np.array_equal(sad, afraid)


@pytest.fixture
def heard(monkeypatch):
    """Function of plan, knobs, variation: (voice's window, speech, span as (start, stop) in
    seconds, loudness of the voice within the window against that of the whole speech)."""
    calls, whole = [], clips.articulate

    def watched(sentence, lead, length, seconds, rng):
        said = whole(sentence, lead, length, seconds, rng)
        calls.append(((lead, lead + length), said.voice))
        return said

    monkeypatch.setattr(clips, "articulate", watched)

    def heard(plan, knobs, variation):
        truth = Clip(plan, 0, FORM, knobs, variation).truth
        speech, voice = calls.pop()
        window = float(truth["voice_start"]), float(truth["voice_end"])
        times = (np.arange(len(voice)) + 0.5) * STEP
        within = (times > window[0]) & (times < window[1])
        spoken = (times > speech[0]) & (times < speech[1])
        span = tuple(float(truth["seconds"]) * share for share in knobs.span)
        return window, speech, span, voice[within].mean() / voice[spoken].mean()

    return heard


@pytest.mark.parametrize("sentence", list(SENTENCES)[:12])
@pytest.mark.parametrize("span", [(0.0, 0.2), (0.2, 0.8), (0.5, 1.0), (0.8, 1.0)])
def test_the_label_of_a_span_is_heard_where_somebody_speaks(heard, span, sentence):
    for label in ("ANG", "FEA", "SAD"):
        plan = of_label(label, sentence=sentence)
        (start, stop), speech, limits, loudness = heard(plan, Knobs(span=span), ALL)
        assert speech[0] <= start < stop <= speech[1]
        assert loudness > 0.3
        if span in ((0.2, 0.8), (0.5, 1.0)):  # enough is said within
            assert limits[0] <= start < stop <= limits[1]
            assert stop - start > 0.2


@pytest.mark.parametrize("variation", [NONE, dataclasses.replace(ALL, timing=0.0)])
def test_a_plain_voice_shows_its_label_from_the_first_sound_to_the_last(heard, variation):
    lengths = {}
    for label in ("SAD", "FEA"):
        window, speech, _, _ = heard(of_label(label), Knobs(), variation)
        np.testing.assert_allclose(window, speech, atol=TRUTH_DIGITS + 1e-9)
        lengths[label] = window[1] - window[0]
    assert lengths["SAD"] > 1.15 * lengths["FEA"]


def test_the_stronger_of_two_emotions_is_the_label_at_every_intensity():
    plans = plan_corpus(96, 8, 0, knobs=Knobs(conflict=1.0))
    for plan in plans[::2]:
        if plan.condition != "conflict":
            continue
        clip = Clip(plan, 0, FORM, Knobs(), dataclasses.replace(ALL, intensity=1.25))
        lively = clip._who.expressiveness
        shown = {
            "face": float(clip.truth["face_strength"]) * lively,
            "voice": float(clip.truth["voice_strength"]),
        }
        assert plan.carriers == (max(shown, key=shown.get),)
