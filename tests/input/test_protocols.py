"""Splits keep actors apart, cover every labelled clip, and never change."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aver_jax.errors import UserError
from aver_jax.input import PROTOCOLS, Dataset, Split, split

CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
CREMA_D = tuple(str(actor) for actor in range(1001, 1092))
RAVDESS = tuple(f"{actor:02d}" for actor in range(1, 25))
ACTOR_PROTOCOLS = [name for name in PROTOCOLS if "random" not in name]
NATIVE = {name: RAVDESS if name.startswith("ravdess") else CREMA_D for name in PROTOCOLS}


def fake_dataset(actors, clips_each=3, sexes=None, seed=0, **columns) -> Dataset:
    """A dataset that has only an index."""
    names = np.repeat(np.array(actors, str), clips_each)
    count = len(names)
    sexes = sexes or {a: ("male", "female")[i % 2] for i, a in enumerate(actors)}
    index = {
        "row": np.arange(count, dtype=np.int32),
        "clip_id": np.array([f"{actor}_{n}" for n, actor in enumerate(names)]),
        "actor": names,
        "sex": np.array([sexes[actor] for actor in names.tolist()]),
        "label": np.random.default_rng(seed).choice(CLASSES, count),
        **{name: np.full(count, "") for name in ("voice_vote", "face_vote", "multimodal_vote")},
        **columns,
    }
    return Dataset(Path("data"), "crema_d", CLASSES, {}, index, ())


def parts(result: Split) -> tuple[np.ndarray, ...]:
    return result.train, result.validation, result.test


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_clip_is_in_one_part_and_tested_in_at_most_one_fold(protocol):
    dataset = fake_dataset(NATIVE[protocol])
    tested = np.zeros(len(dataset), int)
    for fold in range(1, PROTOCOLS[protocol] + 1):
        result = split(dataset, protocol, fold)
        assert result.name == protocol
        np.testing.assert_array_equal(np.sort(np.concatenate(parts(result))), range(len(dataset)))
        tested[result.test] += 1
    assert tested.max() == 1
    assert tested.all() or protocol == "crema_d_random_90_5_5"


@pytest.mark.parametrize("protocol", ACTOR_PROTOCOLS)
def test_no_actor_is_in_two_parts(protocol):
    dataset = fake_dataset(NATIVE[protocol])
    for fold in range(1, PROTOCOLS[protocol] + 1):
        sets = [set(dataset.index["actor"][rows]) for rows in parts(split(dataset, protocol, fold))]
        assert sum(map(len, sets)) == len(set.union(*sets)) == len(NATIVE[protocol])


@pytest.mark.parametrize("protocol", ACTOR_PROTOCOLS)
def test_validation_is_a_tenth_of_the_other_actors_balanced_by_sex(protocol):
    dataset = fake_dataset(NATIVE[protocol])
    for fold in range(1, PROTOCOLS[protocol] + 1):
        result = split(dataset, protocol, fold)
        others = len(np.unique(dataset.index["actor"][np.r_[result.train, result.validation]]))
        actors, first = np.unique(dataset.index["actor"][result.validation], return_index=True)
        assert len(actors) == max(2, round(others / 10))
        men = np.sum(dataset.index["sex"][result.validation][first] == "male")
        assert abs(2 * men - len(actors)) <= 1


def test_validation_actors_differ_between_folds():
    dataset = fake_dataset(RAVDESS)
    drawn = {tuple(split(dataset, "ravdess_pairs", fold).validation) for fold in range(1, 13)}
    assert len(drawn) > 6


@st.composite
def actors_and_sexes(draw):
    actors = draw(st.lists(st.sampled_from(CREMA_D), min_size=6, max_size=40, unique=True))
    sexes = draw(st.lists(st.sampled_from(["male", "female", ""]), min_size=40, max_size=40))
    return actors, dict(zip(actors, sexes, strict=False))


@settings(max_examples=50, deadline=None)
@given(actors_and_sexes(), st.sampled_from(["synthetic_fifths", "folder"]), st.integers(1, 5))
def test_dealt_folds_are_disjoint_covering_and_of_even_size(drawn, protocol, fold):
    actors, sexes = drawn
    dataset = fake_dataset(actors, sexes=sexes)
    result = split(dataset, protocol, fold)
    sets = [set(dataset.index["actor"][rows]) for rows in parts(result)]
    assert set.union(*sets) == set(actors)
    assert sum(map(len, sets)) == len(actors)
    assert len(actors) // 5 <= len(sets[2]) <= -(-len(actors) // 5)
    assert len(sets[1]) >= 2


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(30)), st.sampled_from(["crema_d_folds", "crema_d_random_90_5_5"]))
def test_the_stored_order_of_clips_does_not_matter(order, protocol):
    dataset = fake_dataset(
        ("1001", "1020", "1021", "1040", "1041", "1060", "1061", "1080", "1081", "1090")
    )
    shuffled = Dataset(
        dataset.path, dataset.name, CLASSES, {}, {k: v[order] for k, v in dataset.index.items()}, ()
    )
    for one, other in zip(
        parts(split(dataset, protocol, 1)), parts(split(shuffled, protocol, 1)), strict=True
    ):
        assert set(dataset.index["clip_id"][one]) == set(shuffled.index["clip_id"][other])


def test_published_crema_d_fold_is_reproduced():
    dataset = fake_dataset(CREMA_D)
    tested = np.unique(dataset.index["actor"][split(dataset, "crema_d_folds", 2).test])
    np.testing.assert_array_equal(tested, [str(actor) for actor in range(1019, 1037)])


def test_validation_actors_never_change():
    dataset = fake_dataset(RAVDESS)
    validated = np.unique(dataset.index["actor"][split(dataset, "ravdess_folds", 1).validation])
    assert validated.tolist() == ["15", "16"]


def test_ravdess_pairs_hold_out_one_man_and_one_woman():
    dataset = fake_dataset(RAVDESS)
    tested = np.unique(dataset.index["actor"][split(dataset, "ravdess_pairs", 12).test])
    assert tested.tolist() == ["23", "24"]


def test_tenths_are_dealt_by_sex():
    dataset = fake_dataset(CREMA_D)
    for fold in range(1, 11):
        rows = split(dataset, "crema_d_tenths", fold).test
        men = len(np.unique(dataset.index["actor"][rows][dataset.index["sex"][rows] == "male"]))
        assert men in (4, 5)


def test_random_split_has_the_shares_of_its_name():
    result = split(fake_dataset(CREMA_D, 10), "crema_d_random_90_5_5", 1)
    assert [len(rows) for rows in parts(result)] == [818, 46, 46]


def test_a_folder_without_actors_says_so_in_the_name():
    dataset = fake_dataset(CREMA_D, actor=np.full(91 * 3, ""))
    folds = [split(dataset, "folder", fold) for fold in range(1, 6)]
    assert {result.name for result in folds} == {"random_actors_unknown"}
    tested = np.concatenate([result.test for result in folds])
    np.testing.assert_array_equal(np.sort(tested), range(len(dataset)))


def test_a_folder_with_some_actors_unknown_is_refused():
    names = np.repeat(np.array(CREMA_D), 3)
    names[5] = ""
    with pytest.raises(UserError, match="1 of the 273 clips"):
        split(fake_dataset(CREMA_D, actor=names), "folder", 1)


def test_ties_and_unknown_votes_are_dropped_and_counted():
    votes = np.full(30, "HAP", "<U8")
    votes[::3], votes[1] = "ANG:DIS", ""  # a clip of every actor
    dataset = fake_dataset(CREMA_D[::10], face_vote=votes)
    result = split(dataset, "synthetic_fifths", 1, target="face")
    assert (result.ties, result.unknown, result.dropped) == (10, 1, 11)
    kept = votes == "HAP"
    assert (result.labels[~kept] == -1).all()
    assert (result.labels[kept] == CLASSES.index("HAP")).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(result))), np.flatnonzero(kept))


def test_intended_labels_are_class_indices():
    dataset = fake_dataset(CREMA_D)
    result = split(dataset, "crema_d_folds", 1)
    assert result.labels.dtype == np.int32
    np.testing.assert_array_equal(np.array(CLASSES)[result.labels], dataset.index["label"])


@pytest.mark.parametrize(
    ("actors", "protocol", "fold", "target", "message"),
    [
        (CREMA_D, "nonsense", 1, "intended", "crema_d_folds, crema_d_tenths"),
        (CREMA_D, "crema_d_folds", 0, "intended", "1 to 5"),
        (CREMA_D, "crema_d_folds", 6, "intended", "1 to 5"),
        (CREMA_D, "crema_d_folds", 1, "smell", "intended, voice, face, multimodal"),
        (CREMA_D, "crema_d_folds", 1, "voice", "no clip of data has a voice label"),
        (RAVDESS, "crema_d_folds", 1, "intended", r"24 actors .*01, 02.* 1001 to 1091"),
        (("anna", "bert"), "ravdess_pairs", 1, "intended", "anna, bert"),
        (CREMA_D[:4], "crema_d_folds", 1, "intended", "leaves no train clips"),
        (CREMA_D[:4], "crema_d_folds", 2, "intended", "leaves no test clips"),
        (CREMA_D[:3], "synthetic_fifths", 1, "intended", "leaves no train clips"),
    ],
)
def test_a_split_that_cannot_be_made_is_a_clear_error(actors, protocol, fold, target, message):
    with pytest.raises(UserError, match=message):
        split(fake_dataset(actors), protocol, fold, target)


def test_a_label_outside_the_classes_is_a_clear_error():
    dataset = fake_dataset(CREMA_D, label=np.full(91 * 3, "JOY"))
    with pytest.raises(UserError, match="JOY, expected ANG"):
        split(dataset, "crema_d_folds", 1)
