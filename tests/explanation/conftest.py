"""A small TimeSformer as a run, of random weights, for clips of the synthetic dataset."""

from pathlib import Path

import jax
import pytest

from aver_jax.config import base_config
from aver_jax.input import Dataset, open_dataset, split
from aver_jax.modality import Modality
from aver_jax.models import init_variables
from aver_jax.runs.run_folder import LoadedRun, model_of


@pytest.fixture(scope="session")
def dataset(synthetic_dataset) -> Dataset:
    return open_dataset(synthetic_dataset)


@pytest.fixture(scope="session")
def small_run(dataset) -> LoadedRun:
    config = base_config()
    with config.unlocked():
        config.data.update(
            path=str(dataset.path), protocol="synthetic_fifths", fold=1, num_frames=4,
            image_size=32, modalities=("video",),
        )  # fmt: skip
        config.frontend.normalization = "per_clip"
        config.model = {
            "name": "timesformer", "attention": "divided_space_time", "depth": 2, "width": 16,
            "num_heads": 2, "patch_size": 8, "image_size": 32, "num_frames": 4, "init_std": 0.3,
        }  # fmt: skip
    model = model_of(config, len(dataset.classes))
    variables = jax.jit(lambda: init_variables(model, jax.random.key(0)))()
    return LoadedRun(
        folder=Path("run"), model=model, variables=variables, config=config,
        classes=dataset.classes, protocol="synthetic_fifths", modalities=(Modality.VIDEO,),
        preparation=dict(dataset.preparation), dataset={}, step=0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def test_rows(dataset):
    return split(dataset, "synthetic_fifths", 1).test
