"""The cache of compiled functions: shared, bounded, found again, never where it must not be."""

import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from aver_jax.config import load_config, override
from aver_jax.runtime.compilation_cache import MAX_BYTES, use_compilation_cache
from aver_jax.training import job, setup

NAMES = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_compilation_cache_max_size",
)


@pytest.fixture
def no_cache_folder():
    """A jax without a cache folder; afterwards that of the other tests."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.config.update(NAMES[0], None)
    jax.config.update(NAMES[1], 1.0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def function():
    """A new function each time, of which jax has nothing in memory; it gives its argument away."""

    def shared_by_two_trainings(x):
        for _ in range(30):
            x = jnp.sin(x) @ x
        return x

    return jax.jit(shared_by_two_trainings, donate_argnums=0)


@pytest.mark.usefixtures("no_cache_folder")
def test_a_function_is_kept_and_found_and_computes_the_same(tmp_path, caplog):
    entries = use_compilation_cache(tmp_path)
    assert entries.parent == tmp_path / "aver_jax"
    assert entries.name.startswith(jax.default_backend())
    assert jax.config.jax_compilation_cache_max_size == MAX_BYTES
    jax.config.update(NAMES[1], 0.0)
    x = np.eye(4, dtype=np.float32) / 3
    first = np.asarray(function()(jnp.asarray(x)))
    names = sorted(os.listdir(entries))
    assert any(name.startswith("jit_shared_by_two_trainings") for name in names)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        np.testing.assert_array_equal(function()(jnp.asarray(x)), first)
    assert any(
        "cache hit" in record.getMessage() and "shared_by_two" in record.getMessage()
        for record in caplog.records
    )
    assert sorted(os.listdir(entries)) == names


@pytest.mark.usefixtures("no_cache_folder")
def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    entries = use_compilation_cache(tmp_path)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.05
    jax.config.update(NAMES[0], None)
    (entries / "jit_a-1-cache").touch()
    (entries / "jit_b-2-cache").write_bytes(b"x")
    assert use_compilation_cache(tmp_path) == entries
    assert os.listdir(entries) == ["jit_b-2-cache"]


def test_what_a_user_told_jax_stays(tmp_path):
    told = jax.config.jax_compilation_cache_dir  # by conftest.py
    assert use_compilation_cache(tmp_path) is None
    assert jax.config.jax_compilation_cache_dir == told
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_cache_folder")
@pytest.mark.parametrize("told", ["", "disabled", "unwritable", "threshold"])
def test_nothing_is_kept_where_it_is_not_wanted_or_cannot_be(tmp_path, told):
    folder = tmp_path / "runs"
    if told == "":
        jax.config.update(NAMES[0], "")
    if told == "unwritable":
        folder.write_text("a file")
    if told == "threshold":
        jax.config.update(NAMES[1], 5.0)
        assert use_compilation_cache(folder) is not None
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 5.0
        return
    if told == "disabled":
        jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert use_compilation_cache(folder) is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir == (told if told == "" else None)


@pytest.mark.usefixtures("no_cache_folder")
def test_the_least_recently_used_go_first(tmp_path):
    entries = use_compilation_cache(tmp_path)
    jax.config.update(NAMES[1], 0.0)
    jax.config.update(NAMES[2], 20_000)
    x = np.eye(4, dtype=np.float32)
    for size in range(2, 12):
        jax.block_until_ready(jax.jit(lambda x, n=size: jnp.sin(x) @ x + n)(x))
    sizes = [path.stat().st_size for path in entries.glob("*-cache")]
    assert 0 < sum(sizes) <= 20_000
    assert 0 < len(sizes) < 10


@pytest.mark.usefixtures("no_cache_folder")
def test_the_default_is_one_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert use_compilation_cache().parent == tmp_path / "aver_jax"


def test_a_training_uses_the_cache(synthetic_dataset, tmp_path, monkeypatch):
    class Told(Exception):
        pass

    def tell():
        raise Told

    monkeypatch.setattr(setup, "use_compilation_cache", tell)
    config = load_config("timesformer.py:size=demo,dataset=synthetic")
    config = override(config, [f"--config.data.path={synthetic_dataset}", "--config.batch_size=4"])
    with pytest.raises(Told):
        job.train(config, tmp_path / "runs/one", quiet=True)
