"""What every test shares: four fake devices, strict ranks, and one small corpus rendered once."""

import getpass
import os
import tempfile
import time

# Before the first import of jax: the tests of data parallelism need several devices.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pathlib import Path

import jax
import pytest

from aver_jax.runtime.compilation_cache import use_compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    # Another session may be writing it; it is compiled again.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error reading persistent compilation cache entry"
    )


@pytest.fixture(scope="session", autouse=True)
def _compile_once() -> None:
    """Tests find what earlier ones compiled, also those of earlier sessions on this machine.

    An entry's name is a hash of the program, the flags and the versions, so none is ever stale.
    """
    folder = Path(tempfile.gettempdir()) / f"aver_jax_tests_{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Programs are run as they are found: nobody else may have written them.
    assert folder.owner() == getpass.getuser()
    use_compilation_cache(folder)


class Clock:
    """Stands in for `time.perf_counter`: moves when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real CREMA-D material; tests that need it are skipped without it."""
    default = Path(__file__).parents[2] / "shared/data/crema_d"
    folder = Path(os.environ.get("AVER_REAL_CLIPS", default))
    if not (folder / "clips").is_dir():
        pytest.skip(f"no real clips in {folder}; set AVER_REAL_CLIPS to a CREMA-D folder")
    return folder


@pytest.fixture(scope="session")
def synthetic_media(tmp_path_factory) -> Path:
    """A folder of 30 rendered clips of 5 actors, one second each, under CREMA-D's names."""
    from data_prep.synthetic.corpus import render_corpus

    out = tmp_path_factory.mktemp("corpus") / "media"
    return render_corpus(out, clips=30, actors=5, seed=0, workers=1, size=128, fps=10, seconds=1.0)


@pytest.fixture(scope="session")
def synthetic_dataset(tmp_path_factory, synthetic_media) -> Path:
    """The prepared dataset of `synthetic_media`, crops of 32 pixels."""
    from aver_jax.cli import main

    out = tmp_path_factory.mktemp("corpus") / "data"
    words = ["--source", str(synthetic_media), "--out", str(out), "--size", "32", "--workers", "1"]
    assert main(["prepare", "crema_d", *words]) == 0
    return out


@pytest.fixture(scope="session")
def small_run(synthetic_dataset):
    """A run of a small TimeSformer of random weights, on fold 1 of `synthetic_dataset`."""
    from aver_jax.config import base_config
    from aver_jax.input import open_dataset
    from aver_jax.modality import Modality
    from aver_jax.models import init_variables
    from aver_jax.runs.run_folder import LoadedRun, model_of

    dataset = open_dataset(synthetic_dataset)
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
