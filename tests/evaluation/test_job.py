"""Evaluation: every clip once, whatever the padding, views and devices; files and table."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax.audit import stored
from aver_jax.cli import main
from aver_jax.errors import UserError
from aver_jax.evaluation import job, metrics
from aver_jax.evaluation.evaluator import Evaluator, collect_logits, evaluation_loader
from aver_jax.evaluation.forward import Forward
from aver_jax.input import Dataset, Split
from aver_jax.report import sections
from aver_jax.runtime.data_parallel import make_mesh

CLASSES = ("ANG", "HAP", "SAD")
BRIGHTNESS = np.array([40, 120, 200])


class BrightnessModel:
    """Recognises a clip by its mean brightness; `sharpness` is its one parameter."""

    traces = 0
    compiler_options = None

    def for_inference(self, unrolled):
        return self

    def apply(self, variables, inputs, train=False):
        assert not train
        type(self).traces += 1
        centres = jax.numpy.asarray(BRIGHTNESS / 127.5 - 1, "float32")
        mean = inputs["frames"].mean((1, 2, 3, 4))
        return -variables["params"]["sharpness"] * (mean[:, None] - centres[None]) ** 2, {}


class TwoBranches(BrightnessModel):
    """A fusion that sees brightness; its video branch sees it too, its audio branch nothing."""

    def apply(self, variables, inputs, train=False):
        logits, _ = super().apply(variables, inputs, train)
        mean = inputs["frames"].mean((1, 2, 3, 4))
        nothing = jax.numpy.zeros_like(logits) + jax.numpy.array([[1.0, 0.0, 0.0]])
        taps = {"logits_video": 2 * logits, "logits_audio": nothing, "features": mean[:, None]}
        return logits, taps


VARIABLES = {"params": {"sharpness": np.float32(40.0)}}


def _record(brightness, name):
    frames = [np.full((8, 8, 3), brightness + step, np.uint8) for step in range(4)]
    return {
        "frames": [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames],
        "timestamps": np.arange(4, dtype=np.float32) / 4,
        "pcm": np.zeros(16_000, "<i2").tobytes(),
        "clip_id": name.encode(),
    }


@pytest.fixture(scope="module")
def dataset():
    """30 clips of 10 actors; the clips of actor 3 look like another class than their label."""
    labels = np.arange(30) % 3
    actors = np.repeat(np.arange(10), 3)
    shown = np.where(actors == 3, (labels + 1) % 3, labels)
    names = [f"clip{i:02d}" for i in range(30)]
    columns = {
        "row": np.arange(30, dtype=np.int32),
        "clip_id": np.array(names),
        "actor": actors.astype(str),
        "sex": np.where(actors % 2, "female", "male"),
        "label": np.array(CLASSES)[labels],
        "seconds": np.ones(30),
        "voice_vote": np.full(30, ""),
    }
    preparation = {"dataset": "synthetic", "classes": list(CLASSES), "size": 8, "margin": 1.3}
    source = [_record(BRIGHTNESS[s], n) for s, n in zip(shown, names, strict=True)]
    return Dataset(Path("data"), "synthetic", CLASSES, preparation, columns, source)


@pytest.fixture(scope="module")
def config():
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "path": "data",
                "protocol": "synthetic_fifths",
                "fold": 2,
                "target": "intended",
                "num_frames": 2,
                "image_size": 8,
                "max_seconds": 6.0,
                "modalities": ("frames",),
                "threads": 0,
            },
            "frontend": {"normalization": "half", "augment": {}},
            "evaluation": {"batch_size": 6, "views": 1},
        }
    )


@pytest.fixture
def loaded(monkeypatch, dataset, config):
    """Lets `evaluate_run` open a run of the brightness model."""
    run = SimpleNamespace(
        folder=Path("run"),
        model=BrightnessModel(),
        variables=VARIABLES,
        config=config,
        classes=CLASSES,
        preparation=dataset.preparation,
        dataset={},
        step=7,
    )
    monkeypatch.setattr(job, "load_run", lambda folder, checkpoint: run)
    monkeypatch.setattr(job, "open_dataset", lambda path: dataset)
    return run


def _batch(rows, mask, logits):
    batch = {"row": np.array(rows), "mask": np.array(mask), "logits": np.array(logits, "float32")}
    return jax.tree.map(jax.numpy.asarray, batch)


def test_padding_is_left_out_and_rows_keep_their_logits():
    batches = [
        _batch([4, 2], [True, True], [[1, 0], [0, 1]]),
        _batch([9, 9], [True, False], [[3, 0], [0, 9]]),
    ]
    clips = collect_logits(lambda batch: batch, batches)
    np.testing.assert_array_equal(clips.rows, [4, 2, 9])
    np.testing.assert_allclose(clips.logits, metrics.log_softmax([[1, 0], [0, 1], [3, 0]]), 1e-6)


def test_views_are_averaged_as_probabilities():
    views = np.log([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    batches = [
        _batch([5, 5], [True, True], views[:2]),
        _batch([5, 5], [True, False], views[[2, 2]]),
    ]
    clips = collect_logits(lambda batch: batch, batches)
    np.testing.assert_allclose(np.exp(clips.logits), [np.exp(views).mean(0)], rtol=1e-6)


def test_one_clip_per_row_on_one_device_and_on_four(dataset, config):
    """21 rows in batches of 6 (8 on four devices): both need padding."""
    rows, labels = np.arange(3, 24), np.arange(30) % 3
    found = []
    for devices in (1, 4):
        forward = Forward(BrightnessModel(), config, make_mesh(devices))
        loader = evaluation_loader(config, make_mesh(devices))
        evaluator = Evaluator(forward, loader, dataset, rows, labels, "validation")
        found.append((evaluator.collect(VARIABLES), dict(evaluator.run(VARIABLES))))
    (one, scores), (four, same_scores) = found
    np.testing.assert_array_equal(one.rows, rows)
    np.testing.assert_array_equal(four.rows, rows)
    np.testing.assert_allclose(one.logits, four.logits, rtol=1e-5)
    assert set(scores) == {f"validation/{name}" for name in ("loss", "war", "uar", "macro_f1")}
    # Of the 21 clips, the three of actor 3 are shown as another class.
    assert scores["validation/war"] == pytest.approx(18 / 21)
    assert scores["validation/uar"] == pytest.approx(18 / 21)
    assert scores == pytest.approx(same_scores)


def test_the_forward_pass_is_traced_once(dataset, config):
    forward = Forward(BrightnessModel(), config, make_mesh(2))
    loader, labels = evaluation_loader(config, make_mesh(2)), np.arange(30) % 3
    evaluator = Evaluator(forward, loader, dataset, np.arange(10), labels, "validation")
    before = BrightnessModel.traces
    for sharpness in (1.0, 2.0, 3.0):
        list(evaluator.run({"params": {"sharpness": np.float32(sharpness)}}))
    assert BrightnessModel.traces == before + 1


def test_branches_have_opinions_and_scores_of_their_own(loaded, dataset):
    loaded.model = TwoBranches()
    evaluation = job.evaluate_run("run", split="train", features=True)
    clips, results = evaluation.clips, evaluation.results
    assert set(clips.branches) == {"video", "audio"}
    np.testing.assert_allclose(
        clips.branches["video"], metrics.log_softmax(2 * clips.logits), rtol=1e-4, atol=1e-4
    )
    assert clips.features.shape == (len(clips.rows), 1)
    shown = clips.features[:, 0] * 127.5 + 127.5
    recognised = BRIGHTNESS[clips.logits.argmax(1)]
    assert np.abs(shown - recognised).max() < 5  # features in the order of the logits
    fused, video, audio = results["metrics"], *(results["branches"][b] for b in ("video", "audio"))
    assert {k: video[k] for k in ("war", "uar")} == {k: fused[k] for k in ("war", "uar")}
    assert video["fused_minus"]["war"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert audio["war"]["value"] == pytest.approx(1 / 3)
    above = audio["fused_minus"]["war"]
    assert above["value"] == pytest.approx(fused["war"]["value"] - 1 / 3)
    assert 0 < above["low"] <= above["value"] <= above["high"]
    table = job.scores.results_table(results)
    assert "predicted by" in table
    assert "fused-audio" in table
    lines = list(csv.DictReader(job.predictions_csv(evaluation).splitlines()))
    assert [float(line["audio ANG"]) for line in lines] == pytest.approx([0.5761] * 18, abs=1e-4)
    assert sum(line["prediction"] == line["label"] for line in lines) == 18 * fused["war"]["value"]


def test_branches_and_features_of_views_are_averaged_like_the_logits():
    views = np.log([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    batch = _batch([5, 5, 7], [True, True, False], views) | {
        "branches": {"audio": views[::-1]},
        "features": np.array([[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]),
    }
    clips = collect_logits(lambda batch: jax.tree.map(jax.numpy.asarray, batch), [batch])
    np.testing.assert_allclose(np.exp(clips.branches["audio"]), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(clips.features, [[2.0, 4.0]])


def test_validation_scores_each_branch(dataset, config):
    forward = Forward(TwoBranches(), config, make_mesh(2))
    loader, labels = evaluation_loader(config, make_mesh(2)), np.arange(30) % 3
    evaluator = Evaluator(forward, loader, dataset, np.arange(30), labels, "validation")
    scores = dict(evaluator.run(VARIABLES))
    assert scores["validation/war_video"] == scores["validation/war"] == pytest.approx(0.9)
    assert scores["validation/war_audio"] == pytest.approx(1 / 3)


def test_results_name_the_protocol_and_score_each_group(loaded, dataset):
    evaluation = job.evaluate_run("run", split="test")
    results = evaluation.results
    tested = np.unique(dataset.index["actor"][evaluation.clips.rows])
    assert (results["protocol"], results["fold"], results["target"], results["step"]) == (
        "synthetic_fifths", 2, "intended", 7,
    )  # fmt: skip
    assert [entry["actor"] for entry in results["per_actor"]] == tested.tolist()
    assert sum(entry["clips"] for entry in results["per_sex"]) == results["clips"] == 6
    by_actor = {entry["actor"]: entry["war"] for entry in results["per_actor"]}
    assert by_actor == {actor: 0.0 if actor == "3" else 1.0 for actor in tested}
    assert results["metrics"]["war"]["value"] == pytest.approx(np.mean(list(by_actor.values())))


def test_temperature_softens_the_probabilities_and_leaves_the_decisions(loaded):
    plain = job.evaluate_run("run", split="train")
    scaled = job.evaluate_run("run", split="train", temperature=True)
    assert plain.temperature == 1.0
    assert scaled.temperature == scaled.results["temperature"]["value"] != 1.0
    assert scaled.results["temperature"]["fitted_clips"] == 6
    assert scaled.results["metrics"] == plain.results["metrics"]
    np.testing.assert_array_equal(scaled.probabilities.argmax(1), plain.probabilities.argmax(1))
    assert not np.allclose(scaled.probabilities, plain.probabilities)


def test_more_views_give_one_answer_per_clip(loaded, config):
    evaluation = job.evaluate_run("run", views=3)
    assert evaluation.results["views"] == 3
    assert len(np.unique(evaluation.clips.rows)) == len(evaluation.clips.rows) == 6
    assert config.evaluation.views == 1


def test_files_and_table_say_the_same(loaded, tmp_path, capsys):
    args = SimpleNamespace(
        run=tmp_path, split="test", checkpoint="best", data=None, protocol=None, fold=None,
        views=None, temperature=True, batch_size=5, out=None, controls=False,
        predictions=tmp_path / "deep" / "predictions.csv",
    )  # fmt: skip
    assert job.run(args) == 0
    out = tmp_path / "evaluation" / "test"
    assert {path.name for path in out.iterdir()} == {
        "results.json", "confusion.csv", "confusion.png", "per_actor.csv", "reliability.png",
    }  # fmt: skip
    results = json.loads((out / "results.json").read_text())
    table = list(csv.reader((out / "confusion.csv").read_text().splitlines()))
    assert table[0] == ["true \\ predicted", *CLASSES]
    counts = np.array([row[1:] for row in table[1:]], int)
    np.testing.assert_array_equal(counts, results["confusion"])
    actors = list(csv.DictReader((out / "per_actor.csv").read_text().splitlines()))
    assert [row["actor"] for row in actors] == [e["actor"] for e in results["per_actor"]]
    picture = cv2.imread(str(out / "confusion.png"))
    assert picture is not None
    assert picture.std() > 10
    predictions = list(csv.DictReader(args.predictions.read_text().splitlines()))
    assert len(predictions) == results["clips"]
    for row in predictions:
        probabilities = [float(row[name]) for name in CLASSES]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert row["prediction"] == CLASSES[int(np.argmax(probabilities))]
    right = np.mean([row["label"] == row["prediction"] for row in predictions])
    assert right == pytest.approx(results["metrics"]["war"]["value"])
    printed = capsys.readouterr().out
    assert "protocol synthetic_fifths, fold 2, intended labels, test split" in printed
    assert f"{100 * right:.1f}%" in printed
    assert "T = " in printed


def test_a_model_with_branches_has_a_figure_of_them(loaded, tmp_path):
    loaded.model = TwoBranches()
    job.write_evaluation(job.evaluate_run("run"), tmp_path)
    picture = cv2.imread(str(tmp_path / "branches.png"))
    assert picture is not None
    assert picture.std() > 10


def test_one_actor_has_scores_and_no_interval(loaded, dataset):
    rows = np.arange(9, 12)
    actors, sexes = dataset.index["actor"][rows], dataset.index["sex"][rows]
    results = job.scores.score_clips(np.eye(3), [0, 1, 2], actors, sexes, CLASSES)
    assert results["metrics"]["war"] == {"value": 1.0, "low": None, "high": None}
    described = {
        "dataset": "d", "protocol": "p", "fold": 1, "target": "t", "split": "test",
        "checkpoint": "best", "step": 1, "classes": CLASSES,
    }  # fmt: skip
    table = job.scores.results_table({**results, **described})
    assert "100.0%" in table
    assert "no training clip" not in table
    described["untrained"] = ["FEA", "SAD"]
    table = job.scores.results_table({**results, **described})
    assert "no training clip is of FEA, SAD" in table


def test_classes_without_a_training_clip_are_named():
    labels = np.int32([0, 2, 0, 1, -1])
    clips = Split("p", 1, "intended", np.arange(3), np.array([3]), np.array([4]), labels, 0, 1)
    assert clips.untrained(("ANG", "DIS", "FEA")) == ["DIS"]


def test_a_dataset_of_other_classes_is_refused(loaded):
    loaded.classes = ("ANG", "SAD", "HAP")
    with pytest.raises(UserError, match="has the classes ANG, HAP, SAD, the run run ANG, SAD, HAP"):
        job.evaluate_run("run")


def test_another_preparation_is_noted(loaded, capsys):
    loaded.preparation = {**loaded.preparation, "margin": 1.0}
    job.evaluate_run("run")
    assert "prepared with margin 1.3, the run was trained with 1.0" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "evaluate_run", lambda *_, **__: pytest.fail("the work was done"))
    (tmp_path / "file").write_text("x")
    for words in (["--out", "file/x"], ["--predictions", "file/x/p.csv"]):
        words = [words[0], str(tmp_path / words[1])]
        assert main(["evaluate", str(tmp_path / "run"), *words]) == 2
        told = capsys.readouterr().err
        assert f"cannot write to {tmp_path / 'file/x'} (Not a directory)" in told
        assert f"choose another {words[0]}" in told


AUDIT = {
    "version": stored.VERSION,
    "chance": 0.35,
    "protocol_chance": {"2": 0.34},
    "baselines": [
        {
            "name": "loudness", "group": "level", "model": "SVM",
            "value": 0.6, "low": 0.5, "high": 0.7,
            "protocol_folds": {"2": {"value": 0.55, "low": 0.41, "high": 0.62}},
        }
    ],
}  # fmt: skip


@pytest.fixture
def audited(loaded, monkeypatch, dataset, tmp_path):
    """The dataset's folder has an audit; returns the words of `aver evaluate`'s flags."""
    for name in ("index.csv", "preparation.json"):
        (tmp_path / name).write_text("x")
    folder = stored.audit_folder(tmp_path, "synthetic_fifths", "intended")
    folder.mkdir(parents=True)
    audit = AUDIT | {"dataset_hash": stored.dataset_hash(tmp_path)}
    (folder / stored.AUDIT_FILE).write_text(json.dumps(audit))
    own = dataclasses.replace(dataset, path=tmp_path)
    monkeypatch.setattr(job, "open_dataset", lambda path: own)
    return tmp_path


def test_the_best_trivial_baseline_stands_under_the_score(audited, capsys):
    run = audited / "run"
    assert main(["evaluate", str(run)]) == 0
    results = json.loads((run / "evaluation" / "test" / "results.json").read_text())
    assert results["trivial"] == {
        "name": "loudness", "group": "level", "model": "SVM",
        "value": 0.55, "low": 0.41, "high": 0.62, "chance": 0.34,
        "tried": 1,
    }  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("UAR"))
    told = "best of 1 trivial baselines: 55.0% [41.0, 62.0], SVM on loudness"
    assert lines[place + 1].startswith(told)
    summary = sections.summary(results)
    assert ("Best trivial baseline", "55.0%", "SVM on loudness, best of 1; 41.0 to 62.0%") in (
        summary.blocks[0].items
    )
    assert "no audit" not in summary.lead


def test_without_an_audit_the_command_is_named(loaded, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 0
    assert "no audit of this dataset: run `aver audit data" in capsys.readouterr().out
    results = job.evaluate_run("run").results
    assert results["trivial"] is None
    assert "There is no audit of the dataset (aver audit)" in sections.summary(results).lead


def test_training_clips_are_not_compared_with_a_baseline_on_test_clips(audited):
    assert job.evaluate_run("run", split="train").results["trivial"] is None
