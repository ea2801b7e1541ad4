"""The real networks, very small, trained for an epoch."""

import json
import os

import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.training.step import train_step

# The shipped config, shrunk: what is tested is what users run.
TINY = [
    "--config.model.width=4",
    "--config.model.features=8",
    "--config.model.scoring_hidden=8",
    "--config.data.image_size=16",
    "--config.data.num_frames=2",
    "--config.data.max_seconds=1.25",
    "--config.data.threads=0",
    "--config.batch_size=4",
    "--config.epochs=1.0",
    "--config.evaluation.batch_size=8",
    "--config.schedule.warmup_epochs=0.5",
]


def words(dataset, folder, *more: str) -> list[str]:
    config = ["--config", "mrpn.py:size=study", f"--config.data.path={dataset}"]
    return ["experiments", "mrpn_table", *config, "--workdir", str(folder), *TINY, *more]


@pytest.mark.slow
def test_a_network_compiles_once_for_all_folds_and_seeds(synthetic_dataset, tmp_path):
    train_step.cache_clear()
    more = ["--folds", "1,2", "--seeds", "3,4", "--networks", "audio,video,late,n2"]
    assert main(words(synthetic_dataset, tmp_path / "study", *more)) == 0
    assert train_step.cache_info().misses == 4
    cells = tmp_path / "study" / "cells"
    assert len(list(cells.glob("*/result.json"))) == 4 * 2 * 2
    # The branches of late fusion are the networks it was built from, left as they were.
    late, video, audio = (
        np.load(cells / f"{network}_lstm_fold2_seed4" / "test.npz")
        for network in ("late", "video", "audio")
    )
    np.testing.assert_allclose(late["logits_video"], video["logits"], atol=1e-5)
    np.testing.assert_allclose(late["logits_audio"], audio["logits"], atol=1e-5)
    assert np.load(cells / "n2_lstm_fold1_seed3" / "test.npz")["features"].shape == (6, 16)
    assert (tmp_path / "study" / "page" / "features.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores",
)
def test_two_processes_train_what_one_does(synthetic_dataset, tmp_path):
    more = ["--folds", "1,2", "--networks", "audio"]
    for name, workers in (("one", "1"), ("two", "2")):
        assert main(words(synthetic_dataset, tmp_path / name, *more, "--workers", workers)) == 0
    for fold in (1, 2):
        cell = f"cells/audio_lstm_fold{fold}_seed0/result.json"
        one, two = (json.loads((tmp_path / name / cell).read_text()) for name in ("one", "two"))
        assert one["results"]["metrics"]["loss"]["value"] == pytest.approx(
            two["results"]["metrics"]["loss"]["value"], rel=1e-4
        )
