"""Trainings that take no time: what a cell writes is fake, of known accuracy."""

import json
from pathlib import Path

import numpy as np
import pytest

from aver_jax.config import to_json
from aver_jax.evaluation import scores
from aver_jax.evaluation.evaluator import ClipLogits
from aver_jax.evaluation.job import Evaluation
from aver_jax.experiments.grid import trainings
from aver_jax.experiments.pages import figures
from aver_jax.input import open_dataset, split

#: Network -> share of the test clips that it gets right, with an LSTM.
SKILL = {"audio": 0.4, "video": 0.5, "late": 0.55, "n0": 0.6, "n1": 0.7, "n2": 0.9}
#: Aggregator -> what that adds.
ADDED = {"lstm": 0.0, "bilstm": -0.2, "transformer": 0.1, "mean": -0.3}
SPEC = "mrpn.py:size=study,dataset=synthetic"


@pytest.fixture
def trained(monkeypatch) -> list[Path]:
    """Replaces training and evaluation; returns the folders that were trained, in order."""
    folders = []

    def train(config, folder, quiet, report):
        assert quiet
        assert not report
        folders.append(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(to_json(config)))

    monkeypatch.setattr(trainings, "train", train)
    monkeypatch.setattr(trainings, "evaluate_run", fake_evaluation)
    # A thousand steps of t-SNE would take longer than all the rest.
    monkeypatch.setattr(figures, "embedded", lambda features: features[:, :2])
    return folders


def fake_evaluation(folder: Path, split: str, features: bool, skill=SKILL) -> Evaluation:
    """An evaluation of the right clips, right as often as the network's skill says."""
    config = json.loads((folder / "config.json").read_text())
    network, aggregator = folder.name.split("_")[:2]
    assert split == "test"
    dataset = open_dataset(config["data"]["path"])
    parts = _split(dataset, config)
    labels = parts.labels[parts.test]
    rng = np.random.default_rng(config["seed"])
    right = rng.permutation(len(labels)) < round((skill[network] + ADDED[aggregator]) * len(labels))
    logits = np.zeros((len(labels), len(dataset.classes)))
    logits[np.arange(len(labels)), np.where(right, labels, (labels + 1) % 6)] = 3.0
    branches = {"video": logits, "audio": logits} if network in ("n1", "n2", "late") else {}
    clips = ClipLogits(parts.test, logits, branches, rng.normal(size=(len(labels), 8)))
    if not features:
        clips = ClipLogits(parts.test, logits, branches)
    index = dataset.index
    results = {
        "dataset": dataset.name,
        "protocol": parts.name,
        "fold": parts.fold,
        "target": parts.target,
        "step": 1,
        "dropped": parts.dropped,
        "classes": list(dataset.classes),
        **scores.score_clips(
            logits,
            labels,
            index["actor"][parts.test],
            index["sex"][parts.test],
            dataset.classes,
            samples=20,
        ),
    }
    return Evaluation(results, clips, labels, dataset, 1.0)


def _split(dataset, config):
    data = config["data"]
    return split(dataset, data["protocol"], data["fold"], data["target"])


@pytest.fixture
def study_words(synthetic_dataset) -> list[str]:
    """The words after the study's name that every test needs."""
    return ["--config", SPEC, f"--config.data.path={synthetic_dataset}"]
