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


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real CREMA-D material; tests that need it are skipped without it."""
    default = Path(__file__).parents[2] / "shared/data/crema_d"
    folder = Path(os.environ.get("AVER_REAL_CLIPS", default))
    if not (folder / "clips").is_dir():
        pytest.skip(f"no real clips in {folder}; set AVER_REAL_CLIPS to a CREMA-D folder")
    return folder
