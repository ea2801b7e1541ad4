"""The demo's difficulty over all five folds: 40 unseen actors, 20 trainings (about an hour)."""

import csv
import json

import numpy as np
import pytest

from aver_jax.cli import main

FOLDS = range(1, 6)
NETWORKS = {
    "timesformer": "timesformer.py:size=demo,dataset=synthetic",
    "n2": "mrpn.py:network=n2,size=study,dataset=synthetic",
    "video": "mrpn.py:network=video,size=study,dataset=synthetic",
    "audio": "mrpn.py:network=audio,size=study,dataset=synthetic",
}


def run(*words):
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The demo's corpus (`aver demo`), prepared as there."""
    folder = tmp_path_factory.mktemp("demo_folds")
    media, data = folder / "media", folder / "data"
    run("prepare", "synthetic", "--out", media, "--clips", 480, "--actors", 40, "--fps", 12)
    run("prepare", "crema_d", "--source", media, "--out", data, "--size", 96, "--margin", 1.0)
    return data


def over_folds(corpus, folder, name):
    """Trains a network on every fold; returns clip id -> right or not, and results by fold."""
    right, results = {}, []
    for fold in FOLDS:
        run_folder, table = folder / f"{name}{fold}", folder / f"{name}{fold}.csv"
        fields = (f"--config.data.path={corpus}", f"--config.data.fold={fold}")
        run("train", "--config", NETWORKS[name], *fields, "--workdir", run_folder)
        controls = ["--controls"] if name == "timesformer" else []
        run("evaluate", run_folder, *controls, "--predictions", table)
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                right[row["clip_id"]] = row["label"] == row["prediction"]
        written = run_folder / "evaluation/test/results.json"
        results.append(json.loads(written.read_text()))
        print(f"{name}, folds 1 to {fold}: {100 * np.mean(list(right.values())):.1f}%", flush=True)
    assert len(right) == 480
    return np.mean(list(right.values())), results


@pytest.mark.slow
def test_the_video_transformer_learns_what_a_still_does_not_tell(corpus, tmp_path):
    war, results = over_folds(corpus, tmp_path, "timesformer")
    assert war >= 0.75
    lost = {"one frame repeated": [], "two frames repeated": []}
    for found in results:
        for row in found["controls"]["rows"]:
            if row["control"] in lost:
                lost[row["control"]].append(-100 * row["minus_as_is"]["war"]["value"])
    print(lost)
    for losses in lost.values():
        assert len(losses) == len(FOLDS)
        assert np.mean(losses) >= 8


@pytest.mark.slow
def test_face_and_voice_together_tell_more_than_the_better_of_them_alone(corpus, tmp_path):
    war = {name: over_folds(corpus, tmp_path, name)[0] for name in ("n2", "video", "audio")}
    assert war["n2"] - max(war["video"], war["audio"]) >= 0.05
