"""The audit scores unseen actors, is found by evaluation, and refuses what it cannot audit."""

import csv
import json
import shutil

import numpy as np
import pytest

from aver_jax.audit import baselines
from aver_jax.audit.stored import audit_line, best_baseline, read_audit
from aver_jax.cli import main


@pytest.fixture(scope="module")
def audited(synthetic_dataset, tmp_path_factory):
    data = tmp_path_factory.mktemp("audit") / "data"
    shutil.copytree(synthetic_dataset, data)
    return data


def test_an_audit_stands_beside_scores_until_the_dataset_changes(audited, capsys):
    assert "no audit of this dataset" in audit_line(audited, "synthetic_fifths", "intended", 1)
    assert main(["audit", str(audited)]) == 0
    printed = capsys.readouterr().out
    assert "still 16x16 colour" in printed
    assert "no actor is in two parts" in printed
    page = (audited / "audit/synthetic_fifths_intended/audit.html").read_text()
    assert "What the linear models go by" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    audit = read_audit(audited, "synthetic_fifths", "intended")
    assert audit["clips"] == 30
    assert set(audit["balance"]) == {"train", "validation", "test"}
    best = best_baseline(audit)
    assert best["value"] == max(entry["value"] for entry in audit["baselines"])
    assert best["chance"] == pytest.approx(1 / 6)
    line = audit_line(audited, "synthetic_fifths", "intended", 1)
    assert line.startswith("best trivial baseline: ")
    with open(audited / "index.csv", "a") as file:
        file.write("\n")
    assert read_audit(audited, "synthetic_fifths", "intended") is None


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


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("label", "ANG", "nothing to tell apart"), ("actor", "1001", "actor")],
)
def test_one_class_or_one_actor_is_one_line(
    synthetic_dataset, tmp_path, capsys, column, value, words
):
    data = tmp_path / "data"
    shutil.copytree(synthetic_dataset, data)
    with open(data / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = value
    with open(data / "index.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
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
