"""The step of a real MRPN: batch statistics, branches, losses; on any number of devices."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax.config import base_config
from aver_jax.models import build_model, init_variables
from aver_jax.runtime.data_parallel import make_mesh, replicated
from aver_jax.training.settings import StepSettings
from aver_jax.training.step import train_step

BATCH, STEPS = 8, 3
MODEL = {
    "name": "mrpn",
    "stage_sizes": (1,),
    "width": 4,
    "stem": "conv3",
    "features": 4,
    "scoring_hidden": 6,
    "modality_dropout": 0.3,
}


def config_of(**fields) -> ConfigDict:
    config = base_config()
    config.frontend.spectrogram.update({"n_fft": 64, "window": 64, "hop": 32, "segment": 20})
    config.frontend.sound = ConfigDict({"gain": 6.0})
    # SGD: Adam would hide a gradient that is n times too large.
    config.optimizer.update({"name": "sgd", "lr": 0.05})
    config.schedule.update({"name": "constant", "warmup_epochs": 0.0})
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


@pytest.fixture(scope="module")
def model():
    return build_model(MODEL, 3)


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    lengths = np.array([1600, 1600, 900, 0, 1600, 400, 1200, 1600], np.int32)  # one has no sound
    batches = []
    for step in range(STEPS):
        audio = rng.integers(-3000, 3000, (BATCH, 1600)).astype(np.int16)
        batches.append(
            {
                "frames": rng.integers(0, 256, (BATCH, 2, 12, 12, 3), dtype=np.uint8),
                "frame_times": np.zeros((BATCH, 2), np.float32),
                "audio": np.where(np.arange(1600) < lengths[:, None], audio, 0).astype(np.int16),
                "audio_length": lengths,
                "label": rng.integers(0, 3, BATCH).astype(np.int32),
                "mask": np.ones(BATCH, bool),
                "row": np.arange(BATCH, dtype=np.int32),
                "seed": np.arange(BATCH, dtype=np.uint32) + 100 * step,
            }
        )
    return batches


def trained(model, config, batches, devices):
    mesh = make_mesh(devices)
    train = train_step(model, StepSettings.from_config(config), 10, mesh)
    state = train.init(init_variables(model, jax.random.key(0)), config.seed)
    state = jax.device_put(state, replicated(mesh))
    for batch in batches:
        state, metrics = train.step(state, batch)
    return jax.device_get((state.variables, metrics))


def assert_close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), one, other)


@pytest.fixture(scope="module")
def on_one_device(model, batches):
    return trained(model, config_of(), batches, devices=1)


def test_four_devices_compute_what_one_does(model, batches, on_one_device):
    assert_close(trained(model, config_of(), batches, 4), on_one_device)


@pytest.mark.slow
def test_pmap_computes_what_one_device_does(model, batches, on_one_device):
    assert_close(trained(model, config_of(parallel="pmap"), batches, 4), on_one_device)


def test_every_branch_has_a_loss_and_moves(model, on_one_device):
    variables, metrics = on_one_device
    assert set(metrics) == {
        "loss", "loss_fused", "loss_video", "loss_audio", "war", "grad_norm",
    }  # fmt: skip
    before = jax.device_get(init_variables(model, jax.random.key(0)))
    for collection, tree in before.items():
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, tree, variables[collection])
        assert all(jax.tree.leaves(moved)), collection


@pytest.mark.slow
def test_accumulated_parts_are_the_same_on_one_device_and_on_two(model, batches):
    config = config_of(optimizer__accumulate=2)
    # One step: norms over four clips amplify rounding from step to step.
    assert_close(*(trained(model, config, batches[:1], devices) for devices in (1, 2)))
