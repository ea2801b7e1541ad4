"""The numbers of others: tables as printed, people from the crowd's own votes."""

import csv

import numpy as np
import pytest

from aver_jax.experiments.pages import published
from data_prep.corpora.crema_d import crowd_votes, parse_name


def test_tables_have_a_value_for_every_fold():
    for table in (published.TABLE_5_1, published.TABLE_5_2):
        assert {len(values) for values in table.values()} == {len(published.RAVDESS_PAIRS)} == {12}
    assert {len(values) for values in published.TABLE_5_3.values()} == {
        len(published.CREMA_D_SPLITS)
    }
    assert published.TABLE_5_1["n0", True] == published.TABLE_5_2["n0"]
    assert published.table_of("synthetic") is None


@pytest.mark.parametrize(
    ("table", "network", "mean"),
    [
        (published.TABLE_5_2, "late", 81.60),
        (published.TABLE_5_2, "n0", 87.56),
        (published.TABLE_5_2, "n1", 89.82),
        (published.TABLE_5_2, "n2", 91.47),
        (published.TABLE_5_3, "late", 76.84),
        (published.TABLE_5_3, "n0", 78.37),
        (published.TABLE_5_3, "n1", 77.01),
        (published.TABLE_5_3, "n2", 80.59),
    ],
)
def test_the_means_are_those_of_the_printed_folds(table, network, mean):
    assert 100 * np.mean(table[network]) == pytest.approx(mean, abs=0.006)


def test_every_value_stands_at_its_fold():
    # Each value times its place, from the printed tables: two that change places change the sum.
    def sums(table):
        return [round(sum(n * 100 * x for n, x in enumerate(row, 1)), 1) for row in table.values()]

    assert sums(published.TABLE_5_1) == [4533.4, 5259.2, 5330.5, 5620.7, 6343.3, 6691.4]
    assert sums(published.TABLE_5_2) == [6349.9, 6691.4, 6947.6, 7073.8]
    assert sums(published.TABLE_5_3) == [3486.2, 3520.9, 3471.5, 3614.6]


def test_a_tied_vote_is_a_miss_and_a_clip_without_votes_is_not_counted():
    votes = ["ANG", "ANG:DIS", "HAP", ""]
    assert published.majority_accuracy(votes, ["ANG", "ANG", "SAD", "SAD"]) == pytest.approx(1 / 3)
    assert published.majority_accuracy(["", ""], ["ANG", "SAD"]) is None


def test_votes_of_an_index_are_scored_on_the_rows_asked_for():
    index = {
        "label": np.array(["ANG", "SAD", "HAP"]),
        "voice_vote": np.array(["ANG", "ANG", "HAP"]),
        "face_vote": np.array(["", "", ""]),
        "multimodal_vote": np.array(["ANG", "SAD", "HAP"]),
    }
    assert published.majority_of(index, [0, 1]) == {"audio": 0.5, "both": 1.0}


def test_the_crowds_table_gives_the_known_accuracies(real_clips):
    table = real_clips / "tables" / "summaryTable.csv"
    votes = crowd_votes(table)
    with table.open(newline="") as file:
        assert len(votes) == sum(1 for _ in csv.reader(file)) - 1
    labels = [parse_name(clip)["label"] for clip in votes]
    found = [
        round(100 * published.majority_accuracy([v[name] for v in votes.values()], labels), 1)
        for name in ("vote_voice", "vote_face", "vote_multimodal")
    ]
    assert found == [41.6, 66.3, 72.2]
