"""A run whose last checkpoint is damaged goes on from the one before, and loses nothing else."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import preservation_policy

from aver_jax import load_run
from aver_jax.cli import main
from aver_jax.config import load_config, override
from aver_jax.errors import UserError
from aver_jax.runs import checkpoints
from aver_jax.runs.metrics_log import read_metrics
from aver_jax.training import job

FIELDS = (
    "model.width=16", "model.depth=1", "model.unroll=1", "model.num_heads=2",
    "data.image_size=16", "data.num_frames=2", "data.threads=0", "batch_size=4", "epochs=2.0",
    "evaluation.batch_size=12", "evaluation.every_epochs=1.0", "log_every_steps=2",
)  # fmt: skip


def config_of(dataset: Path) -> ConfigDict:
    words = [f"--config.{field}" for field in (*FIELDS, f"data.path={dataset}")]
    return override(load_config("timesformer.py:size=demo,dataset=synthetic"), words)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, synthetic_dataset):
    """A finished run of 6 steps that kept the checkpoints of both its validations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "_preservation", lambda m: preservation_policy.LatestN(2))
        run = tmp_path_factory.mktemp("damage") / "run"
        return job.train(config_of(synthetic_dataset), run, quiet=True)


def damage(run: Path, step: int, item: str) -> None:
    """Makes an array of an item another one than was saved, as a turned bit does.

    It is the checksum that changes: what tensorstore makes of a turned bit depends on which one it
    is (tests/runs turns one).
    """
    file = run / f"checkpoints/{step}/checksums/metadata"
    sums = json.loads(file.read_text())
    first = next(iter(sums[item]))
    sums[item][first][1] ^= 1
    file.write_text(json.dumps(sums))


@pytest.mark.parametrize("item", ["variables", "training"])
def test_it_goes_on_from_the_last_good_step_to_the_same_parameters(
    whole, synthetic_dataset, tmp_path, item, capsys
):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    damage(run, 6, item)
    job.train(config_of(synthetic_dataset), run)
    told = capsys.readouterr().err
    assert "checkpoints/6 is damaged" in told
    assert "the run goes on after step 3" in told
    assert (run / "damaged_checkpoints/6.0").is_dir()
    before, after = (load_run(folder, "last").variables for folder in (whole, run))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    steps = [record["step"] for record in read_metrics(run / "metrics.jsonl")]
    assert steps == sorted(steps)
    assert steps[-1] == 6


def test_a_prediction_from_a_damaged_checkpoint_is_refused(whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    damage(run, 6, "variables")
    assert main(["evaluate", str(run), "--checkpoint", "last"]) == 2
    error = capsys.readouterr().err
    assert "6 is damaged" in error
    assert "other steps of this run: 3" in error
    # What was not touched is read as before.
    load_run(run, "3")


def test_without_another_step_it_says_so(whole, synthetic_dataset, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints/3")
    damage(run, 6, "variables")
    with pytest.raises(UserError, match=r"6 is damaged.*other steps of this run: none"):
        job.train(config_of(synthetic_dataset), run, quiet=True)
    assert (run / "checkpoints/6").is_dir()
