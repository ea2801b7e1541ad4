"""Compiled programs on disk: beside the runs, found again, and never where they must not be."""

import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from aver_jax.config import load_config, override
from aver_jax.runtime.compilation_cache import FOLDER, keep_compiled
from aver_jax.training import job, setup

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def untold():
    """A jax that nobody told where to keep programs; afterwards that of the other tests."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.config.update(NAMES[0], None)
    jax.config.update(NAMES[1], 1.0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def program():
    """A new function each time, of which jax has nothing in memory; it gives its argument away."""

    def shared_by_two_trainings(x):
        for _ in range(30):
            x = jnp.sin(x) @ x
        return x

    return jax.jit(shared_by_two_trainings, donate_argnums=0)


@pytest.mark.usefixtures("untold")
def test_a_program_is_kept_and_found_and_computes_the_same(tmp_path, caplog):
    entries = keep_compiled(tmp_path)
    assert entries.parent == tmp_path / FOLDER
    assert entries.name.startswith(jax.default_backend())
    assert (tmp_path / FOLDER / ".gitignore").read_text() == "*\n"
    jax.config.update(NAMES[1], 0.0)
    x = np.eye(4, dtype=np.float32) / 3
    first = np.asarray(program()(jnp.asarray(x)))
    names = sorted(os.listdir(entries))
    assert any(name.startswith("jit_shared_by_two_trainings") for name in names)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        np.testing.assert_array_equal(program()(jnp.asarray(x)), first)
    assert any(
        "cache hit" in record.getMessage() and "shared_by_two" in record.getMessage()
        for record in caplog.records
    )
    assert sorted(os.listdir(entries)) == names


@pytest.mark.usefixtures("untold")
def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    entries = keep_compiled(tmp_path)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.3
    jax.config.update(NAMES[0], None)
    (entries / "jit_a-1-cache").touch()
    (entries / "jit_b-2-cache").write_bytes(b"x")
    assert keep_compiled(tmp_path) == entries
    assert os.listdir(entries) == ["jit_b-2-cache"]


def test_what_a_user_told_jax_stays(tmp_path):
    told = jax.config.jax_compilation_cache_dir  # by conftest.py
    assert keep_compiled(tmp_path) is None
    assert jax.config.jax_compilation_cache_dir == told
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("untold")
@pytest.mark.parametrize("told", ["", "disabled", "unwritable", "threshold"])
def test_nothing_is_kept_where_it_is_not_wanted_or_cannot_be(tmp_path, told):
    folder = tmp_path / "runs"
    if told == "":
        jax.config.update(NAMES[0], "")
    if told == "unwritable":
        folder.write_text("a file")
    if told == "threshold":
        jax.config.update(NAMES[1], 5.0)
        assert keep_compiled(folder) is not None
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 5.0
        return
    if told == "disabled":
        jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert keep_compiled(folder) is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir == (told if told == "" else None)


def test_a_training_keeps_its_programs_beside_its_run_folder(
    synthetic_dataset, tmp_path, monkeypatch
):
    class Told(Exception):
        pass

    def tell(folder):
        raise Told(folder)

    monkeypatch.setattr(setup, "keep_compiled", tell)
    config = load_config("timesformer.py:size=demo,dataset=synthetic")
    config = override(config, [f"--config.data.path={synthetic_dataset}", "--config.batch_size=4"])
    with pytest.raises(Told) as told:
        job.train(config, tmp_path / "runs/one", quiet=True)
    assert told.value.args == (tmp_path / "runs",)
