"""The audit scores unseen actors, is found by evaluation, and refuses what it cannot audit."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from aver_jax.audit import baselines
from aver_jax.audit.audit import audited
from aver_jax.audit.duplicates import described
from aver_jax.audit.features import features_of
from aver_jax.audit.job import audit_table
from aver_jax.audit.page import write_page
from aver_jax.audit.stored import audit_line, best_baseline, read_audit
from aver_jax.cli import main
from aver_jax.errors import UserError
from aver_jax.input import open_dataset


@pytest.fixture(scope="module")
def copied(synthetic_dataset, tmp_path_factory):
    data = tmp_path_factory.mktemp("audit") / "data"
    shutil.copytree(synthetic_dataset, data)
    return data


def test_an_audit_stands_beside_scores_until_the_dataset_changes(copied, capsys):
    assert "no audit of this dataset" in audit_line(copied, "synthetic_fifths", "intended", 1)
    assert main(["audit", str(copied)]) == 0
    printed = capsys.readouterr().out
    assert "still 16x16 colour" in printed
    assert "no actor is in two parts" in printed
    page = (copied / "audit/synthetic_fifths_intended/audit.html").read_text()
    assert "What the linear models go by" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    audit = read_audit(copied, "synthetic_fifths", "intended")
    assert audit["clips"] == 30
    assert set(audit["balance"]) == {"train", "validation", "test"}
    best = best_baseline(audit)
    assert best["value"] == max(entry["value"] for entry in audit["baselines"])
    assert best["chance"] == pytest.approx(1 / 6)
    line = audit_line(copied, "synthetic_fifths", "intended", 1)
    assert line.startswith("best of 24 trivial baselines: ")
    heard = audit_line(copied, "synthetic_fifths", "intended", 1, ["audio"])
    assert heard.startswith("best of 12 trivial baselines: ")
    assert best_baseline(audit, ["audio"])["group"] != "picture"
    assert best_baseline(audit, ["video"])["group"] != "sound"
    with open(copied / "index.csv", "a") as file:
        file.write("\n")
    assert read_audit(copied, "synthetic_fifths", "intended") is None


def test_predictions_come_from_models_that_have_not_seen_the_actor():
    # A feature that names the actor tells the label of seen actors alone.
    rng = np.random.default_rng(0)
    actors = np.repeat(np.arange(10), 6)
    y = np.repeat(rng.permutation(10) % 2, 6)
    x = np.eye(10)[actors]
    model = baselines.models()["logistic regression"]
    assert (baselines.out_of_fold(model, x, y, None) == y).mean() == 1
    assert (baselines.out_of_fold(model, x, y, actors) == y).mean() < 0.8


def test_the_interval_resamples_actors_not_clips():
    right = np.repeat([True, False] * 5, 20)
    wide = baselines.accuracy(right, np.repeat(np.arange(10), 20))
    narrow = baselines.accuracy(right, np.arange(200))
    assert wide["value"] == narrow["value"] == 0.5
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])
    assert baselines.accuracy(right, np.zeros(200))["low"] is None


def edited(source, data, **columns):
    """Copies a dataset, with one value in all of a column of its index."""
    shutil.copytree(source, data)
    with open(data / "index.csv", newline="") as file:
        rows = [{**row, **columns} for row in csv.DictReader(file)]
    with open(data / "index.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return data


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("label", "ANG", "nothing to tell apart"), ("actor", "1001", "actor")],
)
def test_one_class_or_one_actor_is_one_line(
    synthetic_dataset, tmp_path, capsys, column, value, words
):
    data = edited(synthetic_dataset, tmp_path / "data", **{column: value})
    assert main(["audit", str(data), "--protocol", "synthetic_fifths"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (data / "audit").exists()


def test_the_table_goes_to_a_file_as_well(synthetic_dataset, tmp_path):
    words = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "a.json")]
    assert main(["audit", str(synthetic_dataset), *words]) == 0
    audit = json.loads((tmp_path / "a.json").read_text())
    assert audit == json.loads((tmp_path / "out" / "audit.json").read_text())
    assert {entry["group"] for entry in audit["baselines"]} >= {"picture", "sound", "level"}


def test_the_svm_is_the_usual_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 20)), np.arange(120) % 3
    x[:, 0] += y
    x[:, 1] = 5  # a constant column: gamma "scale" counts it
    usual = make_pipeline(StandardScaler(), SVC(C=10)).fit(x[:80], y[:80])
    ours = baselines.fitted(baselines.models()["SVM"], x[:80], y[:80])
    np.testing.assert_array_equal(ours.predict(x[80:]), usual.predict(x[80:]))
    decision = usual.decision_function(x[80:])
    np.testing.assert_allclose(ours.decision_function(x[80:]), decision, atol=1e-9)


def test_the_most_frequent_label_of_an_actor_is_an_upper_bound_of_priors():
    actors = np.repeat([0, 1], 10)
    y = np.array([0] * 9 + [1] + [1] * 7 + [0] * 3)
    assert (baselines.majority_of_each(y, actors) == y).mean() == 0.8
    balanced = np.tile([0, 1], 10)
    assert (baselines.majority_of_each(balanced, actors) == balanced).mean() == 0.5


def test_without_actors_clips_are_dealt_and_it_says_so(synthetic_dataset, tmp_path, capsys):
    data = edited(synthetic_dataset, tmp_path / "data", actor="")
    assert main(["audit", str(data), "--protocol", "folder"]) == 0
    printed = capsys.readouterr().out
    assert "folds of clips (actors unknown" in printed
    audit = read_audit(data, "folder", "intended")
    assert audit["actors"] == 0
    assert audit["leaks"] == []
    assert audit["baselines"][0]["low"] is not None
    assert "trivial baselines: " in audit_line(data, "folder", "intended", 1)
    other = audit_line(data, "folder", "intended", 2)
    assert f"over {audit['folds']} folds of its own" in other


def test_pairs_between_parts_come_first_and_are_shown(synthetic_dataset, tmp_path):
    dataset = open_dataset(synthetic_dataset)
    rows = np.arange(3)
    pairs = described(
        [(0, 1, "sound"), (1, 2, "frames")], dataset, rows, {0: "train", 1: "train", 2: "test"}
    )
    assert [pair["alike"] for pair in pairs] == ["frames", "sound"]
    audit, table, labels = audited(dataset, "synthetic_fifths", "intended")
    audit["duplicates"] = pairs
    a, b = pairs[0]["clips"]
    assert f"  {a} (train) and {b} (test): frames" in audit_table(audit)
    page = write_page(tmp_path / "a.html", audit, dataset, table, labels).read_text()
    assert "Clips that are there twice: 2 pairs" in page
    assert "Middle frames of the first pairs" in page


def test_a_damaged_image_is_named(synthetic_dataset):
    dataset = open_dataset(synthetic_dataset)
    record = dataset.source[3]
    records = [{**record, "frames": [b"no image"] * len(record["frames"])}]
    with pytest.raises(UserError, match=f"of clip {record['clip_id'].decode()} is not a readable"):
        features_of(dataclasses.replace(dataset, source=records), [0])
