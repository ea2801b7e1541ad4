"""The demo's difficulty over all five folds: 40 unseen actors, 20 trainings (about an hour)."""

import csv
import json

import numpy as np
import pytest

from aver_jax.cli import main

FOLDS = range(1, 6)
NETWORKS = {
    "timesformer": "timesformer.py:size=demo,dataset=synthetic",
    "n2": "mrpn.py:network=n2,size=small,dataset=synthetic",
    "video": "mrpn.py:network=video,size=small,dataset=synthetic",
    "audio": "mrpn.py:network=audio,size=small,dataset=synthetic",
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


@pytest.fixture(scope="module")
def right(corpus, tmp_path_factory):
    """Clip id -> right or not, by network; and results by network and fold."""
    runs = tmp_path_factory.mktemp("runs")
    found, results = {name: {} for name in NETWORKS}, {}
    for fold in FOLDS:
        for name, spec in NETWORKS.items():
            folder, table = runs / f"{name}{fold}", runs / f"{name}{fold}.csv"
            fields = (f"--config.data.path={corpus}", f"--config.data.fold={fold}")
            run("train", "--config", spec, *fields, "--workdir", folder)
            controls = ["--controls"] if name == "timesformer" else []
            run("evaluate", folder, *controls, "--predictions", table)
            with table.open(newline="") as file:
                for row in csv.DictReader(file):
                    found[name][row["clip_id"]] = row["label"] == row["prediction"]
            written = folder / "evaluation/test/results.json"
            results[name, fold] = json.loads(written.read_text())
        shown = {name: f"{100 * np.mean(list(own.values())):.1f}" for name, own in found.items()}
        print(f"folds 1 to {fold}: {shown}", flush=True)
    return found, results


@pytest.mark.slow
def test_the_video_transformer_learns_what_a_still_does_not_tell(right):
    found, results = right
    assert len(found["timesformer"]) == 480
    assert np.mean(list(found["timesformer"].values())) >= 0.75
    lost = [
        -100 * row["minus_as_is"]["war"]["value"]
        for fold in FOLDS
        for row in results["timesformer", fold]["controls"]["rows"]
        if row["control"] == "one frame repeated"
    ]
    assert len(lost) == len(FOLDS)
    assert np.mean(lost) >= 8


@pytest.mark.slow
def test_face_and_voice_together_tell_more_than_the_better_of_them_alone(right):
    found, _ = right
    war = {name: np.mean(list(own.values())) for name, own in found.items()}
    assert war["n2"] - max(war["video"], war["audio"]) >= 0.05
