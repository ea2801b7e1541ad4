"""What every test shares: four fake devices, strict ranks, and one small corpus rendered once."""

import os

# Before the first import of jax: the tests of data parallelism need several devices.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory) -> None:
    """Tests that train the same model anew find its steps compiled."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


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
