"""What varies beside the label: its flag, that it knows no label, and how far it goes."""

import dataclasses

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.synthetic import clip as clips
from data_prep.synthetic.clip import Clip, Format
from data_prep.synthetic.drawing.glasses import make_glasses
from data_prep.synthetic.expression import EMOTIONS, UNITS
from data_prep.synthetic.habits import make_rest
from data_prep.synthetic.plan import Knobs, plan_corpus
from data_prep.synthetic.sound.recording import recorded
from data_prep.synthetic.sound.voice import SAMPLE_RATE, Prosody
from data_prep.synthetic.timing import draw_window, fidgets
from data_prep.synthetic.variation import NONE, SHARES, Variation, parse_variation

ALL = Variation()
FORM = Format(size=96, fps=10, seconds=1.0)
TONE = 0.01 * np.sin(2 * np.pi * 220 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)


def changed(**fields):
    return dataclasses.replace(NONE, **fields)


def test_a_flag_starts_from_everything_or_from_none():
    assert parse_variation("") == Variation()
    assert parse_variation("none") == NONE
    assert parse_variation("resting=0.5,glasses=0") == Variation(resting=0.5, glasses=0.0)
    assert parse_variation("none,pose=1") == changed(pose=1.0)
    assert set(dataclasses.asdict(NONE).values()) == {0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hats=1", r"vary has 'hats=1', expected none, or NAME=AMOUNT with a name of resting, .*"),
        ("pose=1,none", "vary has 'none', expected none, or NAME=AMOUNT .*"),
        ("gain=loud", "vary gain is 'loud', expected a number"),
        ("gain", "vary gain is '', expected a number"),
        ("gain=-1", "vary gain is -1, expected an amount from 0 to 3"),
        ("resting=3.5", "vary resting is 3.5, expected an amount from 0 to 3"),
        ("timing=1.1", "vary timing is 1.1, expected an amount from 0 to 1"),
        ("intensity=1.3", "vary intensity is 1.3, expected an amount from 0 to 1.25"),
        ("glasses=1.1", "vary glasses is 1.1, expected a share from 0 to 1"),
        ("noise=nan", "vary noise is nan, expected an amount from 0 to 3"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_one_line(text, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        parse_variation(text)


def vector(units):
    return np.array([units.get(unit, 0.0) for unit in UNITS])


def resting(variation, actors=60, takes=12):
    """Action units at rest, [actors, takes, units]."""
    return np.array(
        [
            [
                vector(make_rest(0, actor, variation, np.random.default_rng([actor, take])).units)
                for take in range(takes)
            ]
            for actor in range(1, actors + 1)
        ]
    )


def test_without_variation_a_face_rests_neutral_and_a_voice_is_plain():
    assert np.abs(resting(NONE, 5, 3)).max() == 0
    rest = make_rest(0, 1, NONE, np.random.default_rng(0))
    assert rest.voice == Prosody()
    assert fidgets(np.arange(50) / 25, 0.0, np.random.default_rng(0)) == {}


def test_resting_faces_differ_where_emotions_move_a_face_and_hardly_elsewhere():
    faces = resting(ALL)
    emotions = np.array([vector(units) for name, units in EMOTIONS.items() if name != "NEU"])
    basis = np.linalg.svd(emotions)[2]
    actors, takes = faces.mean(axis=1), faces - faces.mean(axis=1, keepdims=True)
    for differences in (actors, takes.reshape(-1, len(UNITS))):
        # In shares of the full expression: a fifth and more is what a weak one shows.
        shown = differences @ emotions.T / (emotions**2).sum(axis=1)
        assert (shown.std(axis=0) > 0.15).all()
        along, across = np.split((differences @ basis.T).var(axis=0), [len(emotions)])
        assert along.mean() > 8 * across.mean()
    half = resting(dataclasses.replace(ALL, resting=0.5))
    assert 0.4 < half.std() / faces.std() < 0.65


def test_the_resting_face_leans_to_no_emotion():
    faces = resting(ALL, actors=91, takes=4).mean(axis=1)
    for name, units in EMOTIONS.items():
        if name != "NEU":
            direction = vector(units)
            shown = faces @ direction / (direction**2).sum()
            # Mouths do not close beyond closed, so that those that open lean by a little.
            assert abs(shown.mean()) < 0.75 * shown.std(), name


@pytest.fixture
def drawn(monkeypatch):
    """Function of a plan: all that is drawn for its clip beside the label."""
    calls = []

    def without_sound(sound, variation, rng):
        calls.append((len(sound), *rng.normal(size=4)))
        return np.zeros(len(sound), np.int16)

    monkeypatch.setattr(clips, "recorded", without_sound)

    def drawn(plan):
        clip = Clip(plan, 0, FORM, Knobs(), ALL)
        return {
            "recording": np.array(calls.pop()),
            "frames": clip.times,
            "seen": clip._envelope,
            "heard": [float(clip.truth[name]) for name in ("voice_start", "voice_end")],
            "rest": vector(clip._resting),
            "fidgets": np.array([clip._fidgets[unit] for unit in sorted(clip._fidgets)]),
            "talk": clip._talk,
            "shut": clip._shut,
            "pose": np.stack([clip._motion.yaw, clip._motion.pitch]),
            "light": np.hstack([np.ravel(x) for x in dataclasses.astuple(clip._light)]),
            "glasses": repr(clip._glasses),
            "blur": clip._blur,
            "crf": clip.crf,
        }  # fmt: skip

    return drawn


def test_the_label_changes_nothing_else_that_is_drawn(drawn):
    for plan in plan_corpus(48, 4, 0)[::7]:
        first = drawn(plan)
        others = [
            {"face": {}, "voice": {}, "label": "NEU"},
            {"face": {"SAD": 1.0}, "voice": {"ANG": 0.3}, "label": "SAD"},
        ]
        for shown in others:
            other = drawn(dataclasses.replace(plan, **shown))
            for name, value in first.items():
                np.testing.assert_array_equal(other[name], value, err_msg=name)


def test_other_takes_draw_other_things(drawn):
    one, other = (drawn(plan) for plan in plan_corpus(48, 4, 0)[:2])
    for name in ("recording", "rest", "talk", "pose"):
        assert not np.array_equal(one[name], other[name]), name


def levels(variation, count=200):
    """Decibels of one quiet tone as `count` recordings give it."""
    recordings = [recorded(TONE, variation, np.random.default_rng(i)) for i in range(count)]
    return np.array([20 * np.log10(pcm.astype(float).std()) for pcm in recordings])


def test_the_level_of_recordings_spreads_by_some_11_decibels_and_without_gain_by_one():
    spread = levels(changed(gain=1.0))
    assert 9 < spread.std() < 13
    assert np.ptp(spread) < 2 * (1.8 * 11 + 1) + 0.5  # nothing is lost at either end
    assert np.ptp(levels(NONE)) < 2.1


@pytest.mark.parametrize(
    "variation", [NONE, ALL, dataclasses.replace(ALL, gain=3, noise=3, room=3)]
)
def test_recordings_of_silence_and_of_loud_speech_are_finite_sound(variation):
    for seed in range(6):
        silence = recorded(np.zeros(8000), variation, np.random.default_rng(seed))
        assert silence.dtype == np.int16
        assert silence.shape == (8000,)
        assert silence.any()  # a room is never without noise
        loud = recorded(100 * TONE, variation, np.random.default_rng(seed))
        assert loud.astype(float).std() > silence.astype(float).std()


def test_a_room_without_reverberation_or_colour_leaves_the_sound():
    plain = recorded(TONE, NONE, np.random.default_rng(0)).astype(float)
    room = recorded(TONE, changed(room=1.0), np.random.default_rng(0)).astype(float)
    assert np.corrcoef(plain, TONE)[0, 1] > 0.99
    noise = np.random.default_rng(1).normal(0, 0.01, SAMPLE_RATE)

    def bands(variation, seed):
        pcm = recorded(noise, variation, np.random.default_rng(seed)).astype(float)
        power = np.abs(np.fft.rfft(pcm)) ** 2
        marks = [125, 250, 500, 1000, 2000, 4000]
        return 10 * np.log10([power[low : 2 * low].sum() for low in marks])

    colours = np.array([bands(changed(room=1.0), i) - bands(NONE, i) for i in range(40)])
    colours -= colours.mean(axis=1, keepdims=True)
    assert (colours.std(axis=0) > 1).all()
    assert not np.array_equal(plain, room)


@pytest.mark.parametrize("timing", [0.0, 0.5, 1.0])
def test_windows_lie_within_their_span_and_reach_the_full_expression(timing):
    times = np.arange(0, 4, 0.01)
    shares = []
    for seed in range(200):
        window = draw_window(0.7, 2.9, timing, np.random.default_rng(seed))
        assert 0.7 - 1e-9 <= window.start < window.stop <= 2.9 + 1e-9
        half = window.half
        assert window.start < half[0] < half[1] < window.stop
        shown = window(times)
        assert shown.max() > 0.999
        assert shown[(times < window.start) | (times > window.stop)].max() == 0
        np.testing.assert_allclose(window(np.array(half)), 0.5, atol=1e-6)
        shares.append((window.stop - window.start) / 2.2)
    if timing:
        assert max(shares) - min(shares) > 0.15 * timing
        assert 0.2 < min(shares) < max(shares) < 1
    else:
        np.testing.assert_allclose(shares, 1)


@pytest.fixture(scope="module")
def rendered():
    """Clips of the default corpus and the span of their speech: (clip, start, stop) in seconds."""
    spans, whole = [], clips.articulate

    def watched(sentence, lead, length, seconds, rng):
        spans.append((lead, lead + length))
        return whole(sentence, lead, length, seconds, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "articulate", watched)
        plans = plan_corpus(48, 8, 0)
        made = [Clip(plan, 0, Format(size=96), Knobs(), ALL) for plan in plans]
    return [(clip, *span) for clip, span in zip(made, spans, strict=True)]


def test_the_voice_is_coloured_within_the_speech_and_the_face_within_the_clip(rendered):
    for clip, start, stop in rendered:
        truth = {k: float(clip.truth[k]) for k in ("voice_start", "voice_end", "label_start",
                                                   "label_end", "seconds")}  # fmt: skip
        assert start < truth["voice_start"] < truth["voice_end"] < stop <= truth["seconds"]
        assert 0 < truth["label_start"] < truth["label_end"] < truth["seconds"]


def test_the_truth_says_how_strongly_face_and_voice_show_the_label(rendered):
    shown = {"face": {}, "voice": {}}
    for clip, *_ in rendered:
        for part, by_level in shown.items():
            strength = float(clip.truth[f"{part}_strength"])
            assert (strength == 0) == (clip.truth["label"] == "NEU")
            assert 0 <= strength <= 1.05
            by_level.setdefault(clip.truth["intensity"], []).append(strength)
    pairs = [(float(c.truth["face_strength"]), float(c.truth["voice_strength"]))
             for c, *_ in rendered]  # fmt: skip
    assert len({round(face - voice, 3) for face, voice in pairs}) > 20
    for by_level in shown.values():
        assert np.mean(by_level["LO"]) < np.mean(by_level["MD"]) < np.mean(by_level["HI"])


def test_glasses_are_worn_by_their_share_of_the_actors():
    for share in (0.0, 0.25, 1.0):
        worn = [make_glasses(3, actor, share) is not None for actor in range(1, 401)]
        assert abs(np.mean(worn) - share) < 0.06
    # A larger share takes none off.
    assert all(make_glasses(0, a, 0.5) for a in range(1, 60) if make_glasses(0, a, 0.25))
    assert "glasses" in SHARES


def test_glasses_are_drawn_around_the_eyes_and_leave_nose_and_mouth():
    for plan in [p for p in plan_corpus(48, 4, 0) if p.label == "HAP"][::2]:
        form = Format(size=160, fps=10, seconds=1.0)
        bare = Clip(plan, 0, form, Knobs())
        worn = Clip(plan, 0, form, Knobs(), changed(glasses=1.0))
        pictures = [np.stack(list(clip.frames())).astype(int) for clip in (bare, worn)]
        change = np.abs(pictures[0] - pictures[1]).max(axis=-1)
        assert change.max() > 60
        for frame, boxes in zip(change, bare.boxes, strict=True):
            rows, columns = np.nonzero(frame > 6)
            face, eyes, _, mouth = boxes
            centre = eyes[1::2].mean()
            height = eyes[3] - eyes[1]
            assert rows.min() > centre - height
            assert rows.max() < centre + height
            assert rows.max() < mouth[1]
            assert columns.min() > face[0] - 4
            assert columns.max() < face[2] + 4
