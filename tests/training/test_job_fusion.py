"""Trainings of face and voice together: branches, their runs as a start, views, and pmap."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax import load_run
from aver_jax.config import load_config, override
from aver_jax.errors import UserError
from aver_jax.evaluation import metrics
from aver_jax.evaluation.job import evaluate_run
from aver_jax.frontend import evaluation_inputs
from aver_jax.input import ClipShape, Loader, evaluation_batches, open_dataset, split
from aver_jax.models import init_variables
from aver_jax.runs.checkpoints import Checkpoints, abstract_like
from aver_jax.runs.metrics_log import read_metrics
from aver_jax.runs.run_folder import METADATA, model_of, write_run
from aver_jax.training import hooks, job

CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
# The shipped config, shrunk; the 12 training clips make 3 steps.
TINY = (
    "model.width=4", "model.stage_sizes=(1,)", "model.features=4", "model.aggregator=mean",
    "model.scoring_hidden=6",
    "data.image_size=12", "data.num_frames=2", "data.max_seconds=1.0", "data.threads=0",
    "frontend.spectrogram.bands=8", "batch_size=4", "epochs=1.0", "evaluation.batch_size=12",
    "evaluation.every_epochs=1.0", "schedule.warmup_epochs=0.0", "log_every_steps=1",
)  # fmt: skip

# SGD: Adam would make much of rounding.
AVERAGED = ("optimizer.name=sgd", "optimizer.lr=0.05", "ema_decay=0.9")


def tiny(network: str, dataset: Path, *fields: str) -> ConfigDict:
    words = [*TINY, f"data.path={dataset}", *fields]
    config = load_config(f"mrpn.py:network={network},size=study")
    config = override(config, [f"--config.{word}" for word in words])
    with config.unlocked():
        # Most of the time of so small a training goes into compiling augmentations.
        config.frontend.augment = ConfigDict()
    return config


def variables_of(run: Path) -> dict:
    return jax.tree.map(np.asarray, load_run(run, "last").variables)


@pytest.fixture(scope="module")
def fusion_run(tmp_path_factory, synthetic_dataset) -> Path:
    config = tiny("n2", synthetic_dataset, *AVERAGED)
    folder = tmp_path_factory.mktemp("runs") / "n2"
    return job.train(config, folder, quiet=True, report=False)


def test_a_fusion_logs_the_losses_and_scores_of_its_branches(fusion_run):
    records = read_metrics(fusion_run / "metrics.jsonl")
    first, last = records[0], records[-1]
    terms = [first[f"train/loss_{name}"] for name in ("fused", "video", "audio")]
    assert first["train/loss"] == pytest.approx(sum(terms), rel=1e-5)
    assert {"validation/war", "validation/war_video", "validation/war_audio"} <= set(last)
    assert json.loads((fusion_run / "config.json").read_text())["modalities"] == ["frames", "audio"]


def test_averaged_parameters_come_with_averaged_statistics(fusion_run):
    checkpoints = Checkpoints(fusion_run / "checkpoints", read_only=True)
    found = variables_of(fusion_run)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    step = checkpoints.step("last")
    raw = checkpoints.restore(step, {"variables": abstract_like(found, sharding)})["variables"]
    checkpoints.close()
    for collection in ("params", "batch_stats"):
        differ = jax.tree.map(
            lambda a, b: np.abs(a - b).max() > 0, found[collection], raw[collection]
        )
        assert all(jax.tree.leaves(differ["video"]))


def test_views_are_slices_of_time_that_face_and_voice_share(fusion_run, synthetic_dataset):
    found = evaluate_run(fusion_run, split="validation", views=2, features=True)
    model, variables, config = load_run(fusion_run)
    dataset, data = open_dataset(synthetic_dataset), config.data
    parts = split(dataset, data.protocol, data.fold, data.target)
    (batch,) = evaluation_batches(
        dataset, parts.validation, parts.labels,
        Loader(ClipShape.from_config(data), 2 * len(parts.validation), threads=0), views=2,
    )  # fmt: skip
    whole, views = 16_000, batch["audio_length"].reshape(-1, 2)
    assert (views < whole).all()
    span = batch["frame_times"].max(1).reshape(-1, 2)
    assert (span <= views / 16_000 + 1e-6).all()
    apply = jax.jit(lambda batch: model.apply(variables, evaluation_inputs(config, batch)))
    logits, taps = apply(batch)
    for given, own in ((found.clips.logits, logits),
                       (found.clips.branches["video"], taps["logits_video"]),
                       (found.clips.branches["audio"], taps["logits_audio"])):  # fmt: skip
        of_views = np.exp(metrics.log_softmax(own)).reshape(-1, 2, len(CLASSES))
        assert np.abs(of_views[:, 0] - of_views[:, 1]).max() > 1e-4
        np.testing.assert_allclose(np.exp(given), of_views.mean(1), atol=1e-4)
    features = np.asarray(taps["features"]).reshape(-1, 2, 8)
    np.testing.assert_allclose(found.clips.features, features.mean(1), atol=1e-3)
    assert set(found.results["branches"]) == {"video", "audio"}


@pytest.mark.slow
def test_pmap_trains_a_fusion_to_the_same_parameters_and_statistics(
    fusion_run, synthetic_dataset, tmp_path
):
    config = tiny("n2", synthetic_dataset, *AVERAGED, "parallel=pmap")
    mapped = job.train(config, tmp_path / "pmap", quiet=True, report=False)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        variables_of(mapped),
        variables_of(fusion_run),
    )


@pytest.fixture(scope="module")
def branch_runs(tmp_path_factory, synthetic_dataset) -> dict[str, Path]:
    """A run of each modality alone, with random variables."""
    runs = {}
    for seed, modality in enumerate(("video", "audio")):
        config = tiny(modality, synthetic_dataset)
        metadata = {name: {} for name in METADATA}
        metadata.update(classes=list(CLASSES), protocol="", modalities=list(config.data.modalities))
        model = model_of(config, len(CLASSES))
        rng = np.random.default_rng(seed)
        shapes = jax.eval_shape(lambda model=model: init_variables(model, jax.random.key(0)))
        runs[modality] = tmp_path_factory.mktemp("runs") / modality
        write_run(
            runs[modality], config, metadata,
            jax.tree.map(lambda x, rng=rng: rng.uniform(0.1, 1, x.shape).astype(x.dtype), shapes),
        )  # fmt: skip
    return runs


def late_config(dataset: Path, runs: dict[str, Path]) -> ConfigDict:
    parts = [(m, f"{m}{part}") for m in runs for part in ("", "_scoring")]
    return tiny("late", dataset, *(f"init.{subtree}={runs[m]}" for m, subtree in parts))


@pytest.fixture(scope="module")
def late_run(tmp_path_factory, synthetic_dataset, branch_runs) -> Path:
    config = late_config(synthetic_dataset, branch_runs)
    return job.train(config, tmp_path_factory.mktemp("runs") / "late", quiet=True, report=False)


def test_late_fusion_takes_two_runs_and_leaves_them_as_they_are(
    synthetic_dataset, branch_runs, late_run
):
    config, found = late_config(synthetic_dataset, branch_runs), variables_of(late_run)
    for modality in ("video", "audio"):
        trained = variables_of(branch_runs[modality])
        for collection, tree in trained.items():
            for subtree in tree:
                jax.tree.map(
                    np.testing.assert_array_equal, found[collection][subtree], tree[subtree]
                )
    fresh = init_variables(model_of(config, len(CLASSES)), jax.random.key(config.seed))
    for collection in ("params", "batch_stats"):
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max() > 0,
            found[collection]["fusion"],
            fresh[collection]["fusion"],
        )
        assert any(jax.tree.leaves(moved))


@pytest.mark.parametrize("network", ["n2", "late"])
def test_a_stopped_fusion_goes_on_to_the_same_parameters_and_statistics(
    network, synthetic_dataset, branch_runs, tmp_path, monkeypatch, request
):
    whole = request.getfixturevalue("fusion_run" if network == "n2" else "late_run")
    if network == "n2":
        config = tiny("n2", synthetic_dataset, *AVERAGED)
    else:
        config = late_config(synthetic_dataset, branch_runs)

    class Preempted(hooks.StopSignal):
        @property
        def number(self):
            self.asked += 1
            return signal.SIGTERM if self.asked == 2 else 0  # after step 2 of 3

        @number.setter
        def number(self, value):
            self.asked = 0

    with monkeypatch.context() as patch:
        patch.setattr(hooks, "StopSignal", Preempted)
        with pytest.raises(SystemExit):
            job.train(config, tmp_path / "run", quiet=True, report=False)
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == 2
    job.train(config, tmp_path / "run", quiet=True, report=False)
    jax.tree.map(np.testing.assert_array_equal, variables_of(tmp_path / "run"), variables_of(whole))
    job.train(config, whole, quiet=True, report=False)  # finished: nothing to do


REFUSED = {
    "late by its model alone": ("n2", ["model.network=late"], "set --config.freeze="),
    "late, nothing frozen": ("late", ["freeze=()"], "set --config.freeze="),
    "late as shipped": ("late", [], "audio, audio_scoring, video, video_scoring would be frozen"),
    "a branch given in part": (
        "n2",
        ["freeze=('video',)", "model.aggregator=lstm", "init.video/cnn={video}"],
        "^video/aggregator would be frozen at random values",
    ),
    "a frozen part of no run": (
        "n2",
        ["freeze=('video/cnn',)", "model.aggregator=lstm"],
        r"^video/cnn would be .* --config.init.video/cnn=RUN,",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("network", "fields", "clue"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_train_in_vain_is_one_line(
    network, fields, clue, synthetic_dataset, branch_runs, tmp_path
):
    fields = [field.format(**branch_runs) for field in fields]
    with pytest.raises(UserError, match=clue) as raised:
        job.train(tiny(network, synthetic_dataset, *fields), tmp_path / "run", quiet=True)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_late_fusion_may_take_all_from_one_run(late_run, synthetic_dataset, tmp_path):
    config = tiny("late", synthetic_dataset, f"init.model={late_run}")
    again = variables_of(job.train(config, tmp_path / "run", quiet=True, report=False))
    for collection, tree in variables_of(late_run).items():
        for subtree in tree.keys() - {"fusion"}:
            jax.tree.map(np.testing.assert_array_equal, again[collection][subtree], tree[subtree])
