"""The plan of a corpus: unique valid names, balanced labels, and the shares the knobs ask for."""

import re
from collections import Counter

import pytest

from data_prep.errors import UserError
from data_prep.synthetic.identity import make_identity, sex_of
from data_prep.synthetic.plan import NAMINGS, Knobs, plan_corpus

CREMA_D = re.compile(
    r"1\d{3}_(IEO|TIE|IOM|IWW|TAI|MTI|IWL|ITH|DFA|ITS|TSI|WSI)_(ANG|DIS|FEA|HAP|NEU|SAD)"
    r"_(LO|MD|HI|XX)"
)
RAVDESS = re.compile(r"01-01-(0[1-8])-(0[12])-0[12]-0[12]-(\d\d)")


@pytest.mark.parametrize(("naming", "most"), [("crema_d", 288), ("ravdess", 60)])
@pytest.mark.parametrize("per_actor", [1, 24, None])
def test_names_are_unique_and_official(naming, most, per_actor):
    count = per_actor or most
    plans = plan_corpus(3 * count, 3, seed=0, naming=naming)
    names = [plan.clip_id for plan in plans]
    assert len(set(names)) == len(names) == 3 * count
    pattern = CREMA_D if naming == "crema_d" else RAVDESS
    assert all(pattern.fullmatch(name) for name in names)
    assert names == sorted(names)


def test_ravdess_names_state_label_actor_and_a_single_neutral_intensity():
    plans = plan_corpus(24 * 60, 24, seed=0, naming="ravdess")
    for plan in plans:
        emotion, intensity, actor = RAVDESS.fullmatch(plan.clip_id).groups()
        assert NAMINGS["ravdess"][int(emotion) - 1] == plan.label
        assert int(actor) == plan.actor
        assert plan.file == f"Actor_{actor}/{plan.clip_id}.mp4"
        assert (emotion, intensity) != ("01", "02")


def test_each_actor_has_every_label_equally_often():
    for naming, clips in (("crema_d", 480), ("ravdess", 640)):
        plans = plan_corpus(clips, 20, seed=3, naming=naming)
        counts = Counter((plan.actor, plan.label) for plan in plans)
        assert set(counts.values()) == {4}


def test_labels_stay_balanced_when_clips_do_not_divide():
    counts = Counter(plan.label for plan in plan_corpus(100, 7, seed=0))
    assert max(counts.values()) - min(counts.values()) <= 2
    per_actor = Counter(plan.actor for plan in plan_corpus(100, 7, seed=0))
    assert set(per_actor.values()) == {14, 15}


@pytest.mark.parametrize("naming", list(NAMINGS))
@pytest.mark.parametrize("per_actor", [1, 3, 5, 7, 10])
@pytest.mark.parametrize("actors", [2, 4, 6, 20])
def test_what_does_not_divide_tells_no_sex(naming, per_actor, actors):
    plans = plan_corpus(per_actor * actors, actors, seed=0, naming=naming)
    men, women = (
        Counter(plan.label for plan in plans if sex_of(plan.actor) == sex)
        for sex in ("Male", "Female")
    )
    assert men == women
    counts = [men[label] for label in NAMINGS[naming]]
    assert max(counts) - min(counts) <= 1


def test_levels_take_turns_and_neutral_keeps_its_official_one():
    plans = plan_corpus(480, 20, seed=0)
    levels = Counter(plan.level for plan in plans if plan.label == "HAP")
    assert set(levels.values()) == {20}
    assert {plan.level for plan in plans if plan.label == "NEU"} == {"XX"}


def test_sexes_alternate_and_voices_differ_by_sex():
    assert [sex_of(actor) for actor in (1, 2, 3)] == ["Male", "Female", "Male"]
    people = [make_identity(0, actor) for actor in range(1, 21)]
    assert max(p.pitch for p in people if p.sex == "Male") < min(
        p.pitch for p in people if p.sex == "Female"
    )


def test_a_clip_does_not_depend_on_the_other_clips_of_the_corpus():
    few = {plan.clip_id: plan for plan in plan_corpus(48, 4, seed=0)}
    many = {plan.clip_id: plan for plan in plan_corpus(480, 20, seed=0)}
    assert few.keys() <= many.keys()
    assert all(many[clip_id] == plan for clip_id, plan in few.items())


def test_knobs_set_the_share_of_each_condition_in_every_label_but_neutral():
    knobs = Knobs(fuzzy_face=0.25, fuzzy_voice=0.25, conflict=0.5)
    plans = plan_corpus(480, 20, seed=0, knobs=knobs)
    counts = Counter((plan.label, plan.condition) for plan in plans)
    assert counts["NEU", "clear"] == 80
    for label in set(NAMINGS["crema_d"]) - {"NEU"}:
        assert counts[label, "fuzzy_face"] == counts[label, "fuzzy_voice"] == 20
        assert counts[label, "conflict"] == 40
    for plan in plans:
        full = set() if plan.label == "NEU" else {plan.label}
        shown = {"face": plan.face, "voice": plan.voice}
        for modality in plan.carriers:
            assert set(shown[modality]) == full
        for modality in {"face", "voice"} - set(plan.carriers):
            emotions = shown[modality]
            assert "NEU" not in emotions, "half a label and no other emotion would tell the label"
            if plan.condition == "conflict":
                assert plan.label not in emotions
                assert len(emotions) == 1
                assert max(emotions.values(), default=0) < 0.7
            else:  # neutral, or the label no stronger than another emotion
                assert len(emotions) in (0, 2)
                assert len(set(emotions.values())) <= 1


def test_the_kind_of_uninformative_modality_is_a_choice():
    def kinds(kind):
        plans = plan_corpus(96, 4, 0, knobs=Knobs(fuzzy_face=1.0, fuzzy_kind=kind))
        return {len(plan.face) for plan in plans if plan.label != "NEU"}

    assert kinds("neutral") == {0}
    assert kinds("blend") == {2}
    assert kinds("both") == {0, 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((10, 92, 0), "92 actors, expected 1 to 91"),
        ((10, 25, 0, "ravdess"), "25 actors, expected 1 to 24"),
        ((289, 1, 0), "289 clips for 1 actor, expected 1 to 288"),
        ((3, 4, 0), "3 clips for 4 actors"),
        ((3, 1, 0, "savee"), "'savee'"),
    ],
)
def test_impossible_counts_are_refused_with_the_possible_ones(arguments, words):
    with pytest.raises(UserError, match=words):
        plan_corpus(*arguments)


@pytest.mark.parametrize("span", [(0.8, 1.0), (0.4, 0.6), (0.7, 0.9), (0.0, 0.2), 0.2])
def test_the_shortest_span_may_lie_anywhere(span):
    assert Knobs(span=span).span == span


@pytest.mark.parametrize(
    "knobs",
    [
        {"fuzzy_face": 0.6, "conflict": 0.6},
        {"fuzzy_voice": -0.1},
        {"carrier": "ears"},
        {"span": (0.6, 0.3)},
        {"span": 0.05},
        {"span": (0.4, 0.59)},
        {"fuzzy_kind": "loud"},
    ],
)
def test_impossible_knobs_are_refused(knobs):
    with pytest.raises(UserError, match="expected"):
        Knobs(**knobs)
