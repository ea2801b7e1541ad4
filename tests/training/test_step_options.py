"""Options of a training: label smoothing, pmap, and the states that a resumed run takes along."""

import signal
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax import load_run
from aver_jax.config import base_config, load_config, override
from aver_jax.models.model import Model
from aver_jax.report import sections
from aver_jax.runs.metrics_log import read_metrics
from aver_jax.training import hooks, job
from aver_jax.training.step import make_loss

# The shipped config, shrunk; the 12 training clips make 3 steps an epoch.
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.unroll": 1,
    "model.num_heads": 2,
    "data.image_size": 16,
    "data.num_frames": 2,
    "data.threads": 0,
    "batch_size": 4,
    "evaluation.batch_size": 12,
    "schedule.warmup_epochs": 0.0,
    "log_every_steps": 1,
}

# What a line of the log tells of the clock.
TIMES = ("clips_per_second", "data_wait", "startup_seconds")


def tiny(dataset: Path, **fields) -> ConfigDict:
    settings = TINY | {name.replace("__", "."): value for name, value in fields.items()}
    words = [f"--config.{name}={value}" for name, value in settings.items()]
    words.append(f"--config.data.path={dataset}")
    return override(load_config("timesformer.py:size=demo,dataset=synthetic"), words)


def params_of(run: Path) -> dict:
    return jax.tree.map(np.asarray, load_run(run, "last").variables["params"])


class GivenLogits(Model):
    """A network whose parameters are its logits, whatever the frames."""

    logits: tuple[tuple[float, ...], ...]

    @nn.compact
    def __call__(self, inputs, train=False, keys=None, capture=(), probes=None):
        return self.param("logits", lambda _: jnp.array(self.logits)), {}


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_cross_entropy_with_part_of_the_target_shared_by_all_classes(smoothing):
    logits = ((2.0, -1.0, 0.5, 0.0), (0.1, 0.2, 3.0, -2.0), (1.0, 1.5, 0.0, 0.0))
    labels = [0, 3, 1]
    config = base_config()
    config.label_smoothing = smoothing
    batch = {
        "frames": jnp.zeros((3, 1, 4, 4, 3), jnp.uint8),
        "label": jnp.array(labels, jnp.int32),
        "seed": jnp.arange(3, dtype=jnp.uint32),
    }
    loss, (_, metrics) = make_loss(GivenLogits(logits), config)(
        {"logits": jnp.array(logits)}, {}, batch, jnp.uint32(0)
    )
    by_hand = []
    for row, label in zip(np.array(logits), labels, strict=True):
        log_p = row - np.log(np.exp(row).sum())
        by_hand.append(-(1 - smoothing) * log_p[label] - smoothing / 4 * log_p.sum())
    np.testing.assert_allclose(loss, np.mean(by_hand), rtol=1e-6)
    assert metrics["loss"] == loss
    np.testing.assert_allclose(metrics["war"], 2 / 3, rtol=1e-6)


def test_losses_of_branches_are_added_and_told_apart():
    class Branches(Model):
        auxiliary_logits = ("logits_video", "logits_audio")

        @nn.compact
        def __call__(self, inputs, train=False, keys=None, capture=(), probes=None):
            zeros, names = nn.initializers.zeros, ("fused", "video", "audio")
            values = {name: self.param(name, zeros, (2, 3)) for name in names}
            taps = {f"logits_{name}": values[name] for name in ("video", "audio")}
            return values["fused"], taps | {"features": values["fused"]}

    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=(2, 3))) for name in ("fused", "video", "audio")}
    batch = {
        "frames": jnp.zeros((2, 1, 4, 4, 3), jnp.uint8),
        "label": jnp.array([2, 0], jnp.int32),
        "seed": jnp.arange(2, dtype=jnp.uint32),
    }
    config = base_config()
    config.label_smoothing = 0.1
    loss = make_loss(Branches(), config)
    gradient, (_, metrics) = jax.grad(loss, has_aux=True)(params, {}, batch, jnp.uint32(0))
    assert set(metrics) == {"loss", "loss_fused", "loss_video", "loss_audio", "war"}
    targets = 0.9 * np.eye(3)[[2, 0]] + 0.1 / 3
    for name, logits in params.items():
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(
            metrics[f"loss_{name}"], -(targets * np.log(p)).sum(-1).mean(), rtol=1e-5
        )
        np.testing.assert_allclose(gradient[name], (p - targets) / 2, rtol=1e-4, atol=1e-6)
    terms = [metrics[f"loss_{name}"] for name in params]
    np.testing.assert_allclose(metrics["loss"], np.sum(terms), rtol=1e-6)


@pytest.fixture(scope="module", autouse=True)
def _no_reports():
    """A report takes longer than such a training, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "training_report", lambda run: run)
        yield


@pytest.fixture(scope="module")
def config(synthetic_dataset) -> ConfigDict:
    """Nine steps with all that is random or has a state of its own switched on."""
    config = tiny(
        synthetic_dataset,
        epochs=3.0,
        model__depth=2,
        model__unroll=2,  # its layers are unstacked in the train state
        evaluation__every_epochs=0.67,  # after steps 2, 4, 6, 8 and the last, 9
        model__attention="space_only",
        model__drop_path=0.3,
        # Adam would make much of rounding.
        optimizer__name="sgd",
        optimizer__lr=2.0,
        ema_decay=0.9,
        schedule__name="plateau",
        schedule__plateau_patience=1,
    )
    # One augmentation stands for all: most of the time goes into compiling them.
    with config.unlocked():
        config.frontend.augment = ConfigDict({"flip": 0.5})
    return config


@pytest.fixture(scope="module")
def whole_run(config, tmp_path_factory) -> Path:
    return job.train(config, tmp_path_factory.mktemp("runs") / "whole", quiet=True)


def assert_same_run(one: Path, other: Path) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        params_of(one),
        params_of(other),
    )


def test_a_training_by_pmap_ends_with_the_parameters_of_one_by_shard_map(
    config, whole_run, tmp_path
):
    assert config.parallel == "shard_map"
    config = config.copy_and_resolve_references()
    config.parallel = "pmap"
    mapped = job.train(config, tmp_path / "pmap", quiet=True)
    assert_same_run(mapped, whole_run)


def train_until_stopped(config: ConfigDict, run: Path, monkeypatch, after: int) -> None:
    """Trains until a stop signal, which arrives during step `after`."""
    with monkeypatch.context() as patch:
        preempt(patch, after)
        with pytest.raises(SystemExit):
            job.train(config, run, quiet=True)


def preempt(monkeypatch, after: int) -> None:
    """A stop signal arrives during a step."""
    add = hooks.Progress.add

    class Preempted(hooks.StopSignal):
        def __init__(self):
            super().__init__()
            stops.append(self)

    def add_and_ask(progress, step, metrics, steps=1):
        add(progress, step, metrics, steps)
        if step == after:
            stops[-1].number = signal.SIGTERM

    stops: list[Preempted] = []
    monkeypatch.setattr(hooks, "StopSignal", Preempted)
    monkeypatch.setattr(hooks.Progress, "add", add_and_ask)


def test_an_unrolled_run_goes_on_in_a_loop_over_its_layers(
    config, whole_run, tmp_path, monkeypatch
):
    train_until_stopped(config, tmp_path / "run", monkeypatch, after=5)
    config = config.copy_and_resolve_references()
    # As a user would: both are fields of the shipped config.
    config.model.unroll = 1
    config.model.remat = "block"
    job.train(config, tmp_path / "run", quiet=True)
    assert_same_run(tmp_path / "run", whole_run)


def test_a_resumed_run_takes_the_moving_average_and_the_plateau_along(
    config, whole_run, tmp_path, monkeypatch
):
    train_until_stopped(config, tmp_path / "run", monkeypatch, after=7)
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"] == 7
    job.train(config, tmp_path / "run", quiet=True)
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "run"), params_of(whole_run))

    def numbers(run):
        records = read_metrics(run / "metrics.jsonl")
        return [{k: v for k, v in r.items() if k not in TIMES} for r in records]

    assert numbers(tmp_path / "run") == numbers(whole_run)
    rates = [r["learning_rate"] for r in numbers(whole_run) if "learning_rate" in r]
    # The rate fell before the stop, which the plateau's state alone knows, and after it.
    assert len(rates) == 9
    assert rates[0] > rates[6] > rates[8]
