"""The training job: runs, resumes bit for bit, fine-tunes, and says clearly what is wrong."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax import load_run
from aver_jax.cli import main
from aver_jax.config import load_config, override, to_json
from aver_jax.errors import UserError
from aver_jax.runs.metrics_log import read_metrics
from aver_jax.runs.run_folder import read_config
from aver_jax.runtime import preemption
from aver_jax.training import hooks, job

# The shipped config, shrunk: what is tested is what users run.
TINY = [
    "--config.model.width=16",
    "--config.model.depth=1",
    "--config.model.unroll=1",
    "--config.model.num_heads=2",
    "--config.data.image_size=16",
    "--config.data.num_frames=2",
    "--config.data.threads=0",
    "--config.batch_size=4",
    "--config.epochs=2.0",
    "--config.evaluation.batch_size=12",
    "--config.evaluation.every_epochs=1.0",
    "--config.schedule.warmup_epochs=1.0",
    "--config.log_every_steps=2",
]
CONFIG = "timesformer.py:size=demo,dataset=synthetic"


def tiny(dataset: Path, *fields: str) -> ConfigDict:
    data = f"--config.data.path={dataset}"
    return override(load_config(CONFIG), [*TINY, data, *(f"--config.{f}" for f in fields)])


def params_of(run: Path, checkpoint: str = "last"):
    return jax.tree.map(np.asarray, load_run(run, checkpoint).variables["params"])


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, synthetic_dataset) -> Path:
    return job.train(tiny(synthetic_dataset), tmp_path_factory.mktemp("runs") / "whole", quiet=True)


def test_a_run_folder_holds_what_later_jobs_need(whole_run, synthetic_dataset):
    content = json.loads((whole_run / "config.json").read_text())
    assert content["classes"] == ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]
    assert content["protocol"] == "synthetic_fifths"
    assert content["modalities"] == ["frames"]
    assert content["preparation"]["detector"] == "haar"
    assert content["optimizer"] == to_json(tiny(synthetic_dataset))["optimizer"]
    assert (whole_run / "report/index.html").stat().st_size > 10_000
    assert list((whole_run / "tensorboard").iterdir())
    model, variables, config = load_run(whole_run)
    assert config.model.width == 16
    logits, _ = model.apply(variables, {"frames": np.zeros((1, 2, 16, 16, 3), np.float32)})
    assert logits.shape == (1, 6)


def test_the_log_has_training_and_validation_at_their_steps(whole_run):
    records = read_metrics(whole_run / "metrics.jsonl")
    # 12 clips in batches of 4: 3 steps an epoch.
    assert [r["step"] for r in records if "train/loss" in r] == [2, 4, 6]
    assert [r["step"] for r in records if "validation/loss" in r] == [3, 6]
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert records[-1]["epoch"] == 2.0


def test_a_stopped_run_goes_on_to_the_very_same_parameters(
    whole_run, synthetic_dataset, tmp_path, monkeypatch
):
    # A preemption signal arrives during step 2: saved after it, between two validations.
    class Preempted(preemption.StopSignal):
        @property
        def number(self):
            self.asked += 1
            return signal.SIGTERM if self.asked > 1 else 0

        @number.setter
        def number(self, value):
            self.asked = 0

    with monkeypatch.context() as patch:
        patch.setattr(hooks, "StopSignal", Preempted)
        with pytest.raises(SystemExit) as stopped:
            job.train(tiny(synthetic_dataset), tmp_path / "run", quiet=True)
    assert stopped.value.code == 128 + signal.SIGTERM
    (log := tmp_path / "run/metrics.jsonl").write_text(
        log.read_text() + '{"step": 5, "train/loss": 0.0}\n{"step": 6, "tra'
    )
    job.train(tiny(synthetic_dataset), tmp_path / "run", quiet=True)
    assert_same(params_of(tmp_path / "run"), params_of(whole_run))
    # What was logged after the restored step is cut away, then written again.
    steps = [r["step"] for r in read_metrics(log)]
    assert steps == sorted(steps)
    assert all(r.get("train/loss") != 0.0 for r in read_metrics(log))


def test_another_fold_and_seed_in_one_process_compile_nothing(
    whole_run, synthetic_dataset, tmp_path, caplog
):
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        config = tiny(synthetic_dataset, "seed=5", "data.fold=2")
        other = job.train(config, tmp_path / "other", quiet=True, report=False)
    compiled = [m for m in map(logging.LogRecord.getMessage, caplog.records) if "Compiling" in m]
    assert compiled == []
    assert not (other / "report").exists()
    kernels = [params_of(run)["patch_embed"]["kernel"] for run in (whole_run, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_very_same_parameters(synthetic_dataset, tmp_path):
    def command(run):
        fields = [*TINY, f"--config.data.path={synthetic_dataset}", "--config.epochs=60.0"]
        return [sys.executable, "-m", "aver_jax", "train", "--config", CONFIG, *fields,
                "--workdir", str(tmp_path / run)]  # fmt: skip

    environment = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    killed = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.PIPE)
    checkpoints = tmp_path / "killed/checkpoints"
    deadline = time.monotonic() + 120
    while not any(p.name.isdigit() and int(p.name) >= 6 for p in checkpoints.glob("*")):
        assert time.monotonic() < deadline, "no checkpoint after two minutes"
        assert killed.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    subprocess.run(command("killed"), check=True, env=environment, capture_output=True)
    assert_same(params_of(tmp_path / "killed"), params_of(tmp_path / "whole"))


def test_a_finished_run_is_left_as_it_is(whole_run, synthetic_dataset, capsys):
    before = (whole_run / "metrics.jsonl").read_text()
    # Also one of before 2026-12, whose modalities had other names.
    content = json.loads((whole_run / "config.json").read_text())
    content["data"]["modalities"] = ["frames"]
    (whole_run / "config.json").write_text(json.dumps(content))
    job.train(tiny(synthetic_dataset), whole_run)
    assert (whole_run / "metrics.jsonl").read_text() == before
    assert "; nothing to do" in capsys.readouterr().err
    assert read_config(whole_run)[0].data.modalities == ("video",)


def test_a_finished_run_is_extended_and_says_so(whole_run, synthetic_dataset, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    before = [record["step"] for record in read_metrics(run / "metrics.jsonl")]
    more = tiny(synthetic_dataset, "epochs=4.0", "optimizer.lr=0.004")
    with pytest.raises(UserError, match=r"epochs was 2.0, now 4.0.*another --workdir"):
        job.train(more, run, quiet=True)
    job.train(more, run, extend=True)
    assert "resumes after step" in capsys.readouterr().err
    records = read_metrics(run / "metrics.jsonl")
    assert [record["step"] for record in records][: len(before)] == before
    assert records[-1]["epoch"] == pytest.approx(4.0)
    config, metadata = read_config(run)
    assert (config.epochs, config.optimizer.lr) == (4.0, 0.004)
    expected = {"step": before[-1], "before": {"epochs": 2.0, "optimizer.lr": 0.002}}
    assert metadata["extended"] == [expected]
    # The same command resumes, with and without the flag; what was recorded stays.
    job.train(more, run, extend=True)
    assert "; nothing to do" in capsys.readouterr().err
    job.train(more, run, quiet=True)
    assert read_config(run)[1]["extended"] == [expected]
    load_run(run)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("epochs=4.0", "batch_size=8"), r"batch_size was \d+, now 8.*--extend changes epochs"),
        (("epochs=1.0",), r"config.epochs 1 ends at step .*--extend needs more epochs"),
    ],
)
def test_what_cannot_be_extended_is_refused(whole_run, synthetic_dataset, fields, message):
    before = (whole_run / "config.json").read_text()
    with pytest.raises(UserError, match=message):
        job.train(tiny(synthetic_dataset, *fields), whole_run, quiet=True, extend=True)
    assert (whole_run / "config.json").read_text() == before


def test_without_a_run_there_is_nothing_to_extend(synthetic_dataset, tmp_path):
    with pytest.raises(UserError, match="holds no run to extend"):
        job.train(tiny(synthetic_dataset), tmp_path / "new", quiet=True, extend=True)
    assert not (tmp_path / "new").exists()


def test_a_run_of_another_config_is_refused(whole_run, synthetic_dataset):
    other = tiny(synthetic_dataset, "optimizer.lr=0.5")
    with pytest.raises(UserError, match=r"optimizer.lr was 0.002, now 0.5.*another --workdir"):
        job.train(other, whole_run, quiet=True)


def test_a_run_goes_on_only_with_the_dataset_it_began_with(whole_run, synthetic_dataset, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(synthetic_dataset, moved)
    job.train(tiny(moved), whole_run, quiet=True)  # the same one at another place
    preparation = json.loads((moved / "preparation.json").read_text())
    (moved / "preparation.json").write_text(json.dumps({**preparation, "margin": 2.0}))
    with pytest.raises(UserError, match=r"preparation.margin was 1.3, now 2.0"):
        job.train(tiny(moved), whole_run, quiet=True)
    job.train(tiny(synthetic_dataset), whole_run, quiet=True)


def test_a_finished_run_gets_a_report_that_was_lost(whole_run, synthetic_dataset):
    (whole_run / "report/index.html").unlink()
    job.train(tiny(synthetic_dataset), whole_run, quiet=True)
    assert (whole_run / "report/index.html").exists()


def test_fine_tuning_starts_from_the_run_and_keeps_frozen_parts(
    whole_run, synthetic_dataset, tmp_path
):
    config = tiny(
        synthetic_dataset,
        f"init.model={whole_run}",
        "freeze=('blocks','patch_embed')",
        "epochs=1.0",
        "ema_decay=0.9",
        "schedule.name=plateau",
        "model.dtype=bfloat16",
    )
    run = job.train(config, tmp_path / "tuned", quiet=True)
    old, tuned = params_of(whole_run, "best"), params_of(run)
    assert_same(tuned["blocks"], old["blocks"])
    assert np.abs(tuned["head"]["kernel"] - old["head"]["kernel"]).max() > 0
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(tuned))


def test_a_loss_that_is_not_finite_stops_the_run(synthetic_dataset, tmp_path):
    config = tiny(synthetic_dataset, "optimizer.name=sgd", "optimizer.lr=1e30")
    with config.optimizer.unlocked():
        config.optimizer.clip_norm = 0.0
    with pytest.raises(UserError, match=r"is (nan|inf) at step \d.*lower config.optimizer.lr"):
        job.train(config, tmp_path / "run", quiet=True)


ERRORS = {
    "unknown field": (["--config.optimizer.lrr=1"], "lrr"),
    "wrong type": (["--config.batch_size=many"], "batch_size"),
    "missing dataset": (["--config.data.path=nowhere"], "nowhere"),
    "no dataset given": (["--config.data.path="], "data.path"),
    "unknown protocol": (["--config.data.protocol=fifths"], "synthetic_fifths"),
    "fold out of range": (["--config.data.fold=6"], "fold"),
    "batch larger than the split": (["--config.batch_size=64"], "12 clips"),
    "batch not divided by devices": (["--config.batch_size=6"], "take 4 or 8"),
    "unknown model field": (["--config.model.attention=all"], "attention"),
    "unknown optimizer": (["--config.optimizer.name=adam"], "adamw"),
    "unknown schedule": (["--config.schedule.name=step"], "cosine"),
    "unknown mapping": (["--config.parallel=pjit"], "shard_map"),
    "unknown score": (["--config.evaluation.select=validation/acc"], "validation/uar"),
    "batch size of none": (["--config.batch_size=0"], "batch_size is 0"),
    "no accumulation parts": (["--config.optimizer.accumulate=0"], "accumulate is 0"),
    "log every no step": (["--config.log_every_steps=0"], "log_every_steps is 0"),
    "negative seed": (["--config.seed=-1"], "seed is -1"),
    "no frames": (["--config.data.num_frames=0"], "num_frames is 0"),
    "no layers": (["--config.model.depth=0"], "depth is 0"),
    "another modality": (["--config.data.modalities=('audio',)"], "needs video"),
    "unknown init subtree": (["--config.init.head2=nowhere"], "nowhere"),
    "unknown normalization": (["--config.frontend.normalization=zca"], "per_clip"),
    "freeze that matches nothing": (["--config.freeze=('head2',)"], "patch_embed"),
    "frozen part of no run": (
        ["--config.init.blocks=", "--config.freeze=('blocks',)"],
        "give the run to take it from",
    ),
    "init from no run": (["--config.init.model=nowhere"], "nowhere"),
}


@pytest.mark.parametrize(("words", "clue"), ERRORS.values(), ids=ERRORS.keys())
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    words, clue, synthetic_dataset, tmp_path, capsys
):
    data = [f"--config.data.path={synthetic_dataset}"]
    run = ["--config", CONFIG, "--workdir", str(tmp_path / "run")]
    assert main(["train", *run, *TINY, *data, *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("aver train: error:")
    assert clue in lines[-1]
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_folder_of_another_model_is_named(whole_run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(whole_run, other)
    content = json.loads((other / "config.json").read_text())
    content["model"]["width"] = 32
    (other / "config.json").write_text(json.dumps(content))
    assert main(["evaluate", str(other)]) == 2
    assert "does not fit this model" in capsys.readouterr().err


def test_clips_that_trained_a_run_are_never_its_test(whole_run, synthetic_dataset, capsys):
    assert main(["evaluate", str(whole_run), "--fold", "2"]) == 2
    assert "trained this run or chose its checkpoint" in capsys.readouterr().err
    assert main(["evaluate", str(whole_run), "--fold", "1"]) == 0
    assert "synthetic_fifths, fold 1" in capsys.readouterr().out
