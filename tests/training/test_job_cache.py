"""Trainings whose clips are decoded once: the same run, in one compiled call or many."""

import json
import logging
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax import load_run
from aver_jax.cli import main
from aver_jax.config import load_config, override
from aver_jax.errors import UserError
from aver_jax.input import cache
from aver_jax.runs.metrics_log import read_metrics
from aver_jax.training import batches, device_cache, hooks, job, preflight

# The shipped config, shrunk; the 12 training clips make 3 steps an epoch.
TINY = (
    "model.width=4", "model.stage_sizes=(1,)", "model.features=4", "model.aggregator=mean",
    "model.scoring_hidden=6", "frontend.spectrogram.bands=8",
    "data.image_size=12", "data.num_frames=2", "data.max_seconds=0.8", "data.threads=0",
    "data.cache_frames=5", "batch_size=4", "epochs=3.0", "evaluation.batch_size=12",
    "evaluation.every_epochs=1.67", "schedule.warmup_epochs=0.0", "log_every_steps=2",
    "optimizer.name=sgd", "optimizer.lr=0.05",
)  # fmt: skip
TIMES = ("clips_per_second", "data_wait", "startup_seconds")


def tiny(dataset: Path, *fields: str) -> ConfigDict:
    config = load_config("mrpn.py:network=n0,size=study")
    words = [f"--config.{word}" for word in (*TINY, f"data.path={dataset}", *fields)]
    config = override(config, words)
    with config.unlocked():
        # Most of the time of so small a training goes into compiling augmentations.
        config.frontend.augment = ConfigDict()
        config.frontend.sound = ConfigDict()
    return config


def variables_of(run: Path) -> dict:
    return jax.tree.map(np.asarray, load_run(run, "last").variables)


def numbers(run: Path) -> list[dict]:
    records = read_metrics(run / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in TIMES} for r in records]


def assert_close(one, other):
    # Biases before a batch norm have no gradient but rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def run_of(config, folder) -> Path:
    return job.train(config, folder, quiet=True, report=False)


@pytest.fixture(scope="module")
def decoding_run(synthetic_dataset, tmp_path_factory) -> Path:
    return run_of(tiny(synthetic_dataset), tmp_path_factory.mktemp("runs") / "none")


@pytest.fixture(scope="module")
def many_at_once(synthetic_dataset, tmp_path_factory) -> Path:
    """Validations after 5 and 9 steps: dispatches of 2, 2, 1, 2 and 2."""
    config = tiny(synthetic_dataset, "data.cache=device", "steps_per_dispatch=2")
    return run_of(config, tmp_path_factory.mktemp("runs") / "many")


def test_a_run_from_the_hosts_memory_is_the_run_that_decodes_bit_for_bit(
    decoding_run, synthetic_dataset, tmp_path
):
    run = run_of(tiny(synthetic_dataset, "data.cache=host"), tmp_path / "host")
    jax.tree.map(np.testing.assert_array_equal, variables_of(run), variables_of(decoding_run))
    assert numbers(run) == numbers(decoding_run)


def test_a_run_from_the_devices_memory_is_the_run_that_decodes(
    decoding_run, many_at_once, synthetic_dataset
):
    assert_close(variables_of(many_at_once), variables_of(decoding_run))
    one, other = numbers(decoding_run), numbers(many_at_once)
    assert [list(line) for line in one] == [list(line) for line in other]
    assert [line["step"] for line in one] == [2, 4, 5, 6, 8, 9, 9]
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


def test_the_log_tells_the_share_of_waiting_and_the_first_line_the_start(many_at_once):
    lines = [r for r in read_metrics(many_at_once / "metrics.jsonl") if "train/loss" in r]
    assert all(0 <= line["data_wait"] < 1 for line in lines)
    assert ["startup_seconds" in line for line in lines] == [True] + [False] * 4
    assert lines[0]["startup_seconds"] > 0


def test_a_stopped_run_goes_on_with_another_cache_and_other_dispatches(
    many_at_once, synthetic_dataset, tmp_path, monkeypatch
):
    add, stops = hooks.Progress.add, []

    class Preempted(hooks.StopSignal):
        def __init__(self):
            super().__init__()
            stops.append(self)

    def add_and_ask(progress, step, metrics, steps=1):
        add(progress, step, metrics, steps)
        if step - steps < 3 <= step:  # a signal arrives during step 3, with 4 in one call
            stops[-1].number = signal.SIGTERM

    fields = ("data.cache=device", "steps_per_dispatch=2")
    with monkeypatch.context() as patch:
        patch.setattr(hooks, "StopSignal", Preempted)
        patch.setattr(hooks.Progress, "add", add_and_ask)
        with pytest.raises(SystemExit):
            run_of(tiny(synthetic_dataset, *fields), tmp_path / "run")
    assert numbers(tmp_path / "run") == numbers(many_at_once)[:2]
    run_of(tiny(synthetic_dataset, "data.cache=host"), tmp_path / "run")
    assert_close(variables_of(tmp_path / "run"), variables_of(many_at_once))
    other = tiny(synthetic_dataset, "data.cache_frames=6")
    with pytest.raises(UserError, match=r"data\.cache_frames was 5, now 6"):
        run_of(other, tmp_path / "run")


def test_two_programs_serve_a_whole_run_and_the_next_one(
    many_at_once, synthetic_dataset, tmp_path, caplog
):
    config = tiny(synthetic_dataset, "data.cache=device", "steps_per_dispatch=2", "seed=3")
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        run_of(config, tmp_path / "again")
    compiled = [m for m in map(logging.LogRecord.getMessage, caplog.records) if "Compiling" in m]
    assert compiled == []


@pytest.mark.parametrize(("kind", "decoded"), [("host", 12 + 12), ("none", 9 * 4 + 2 * 12)])
def test_a_cache_decodes_every_clip_once(kind, decoded, synthetic_dataset, tmp_path, monkeypatch):
    # 12 clips train; the validation's only batch is one of 12, and is done twice.
    seen = []
    decode = cache.decode_clip

    def counted(*args):
        seen.append(args)
        return decode(*args)

    monkeypatch.setattr(cache, "decode_clip", counted)
    monkeypatch.setattr("aver_jax.input.clips.decode_clip", counted)
    run_of(tiny(synthetic_dataset, f"data.cache={kind}"), tmp_path / "run")
    # On the fly, a few batches more than are used are made ahead.
    assert len(seen) == decoded if kind == "host" else len(seen) >= decoded


@pytest.mark.parametrize("mapping", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
def test_clips_too_many_for_one_device_are_divided(
    mapping, synthetic_dataset, tmp_path, monkeypatch, capsys
):
    placed, layouts = [], []
    lay, place = device_cache.layout_for, device_cache.place_on_devices
    # A clip is 5 * 12 * 12 * 3 bytes of frames and 25,602 of sound.
    monkeypatch.setattr(device_cache, "free_memory", lambda mesh, host: 200_000)
    monkeypatch.setattr(
        device_cache, "layout_for", lambda *args: layouts.append(lay(*args)) or layouts[-1]
    )
    monkeypatch.setattr(
        device_cache, "place_on_devices", lambda *a: placed.append(place(*a)) or placed[-1]
    )
    config = tiny(
        synthetic_dataset, "data.cache=device", f"parallel={mapping}", "epochs=1.0",
        "steps_per_dispatch=3",
    )  # fmt: skip
    job.train(config, tmp_path / "run", report=False)
    assert layouts == ["sharded"]
    assert placed[0].sound.shape == (4, 3, 12_801)
    assert [line["step"] for line in numbers(tmp_path / "run")] == [2, 3, 3]
    errors = capsys.readouterr().err
    assert "each of 4 devices holds and draws from its own shard of the clips" in errors
    assert "first step done after" in errors
    assert "the cache of 3 clips x 5 frames of 12 px: 0.00 GB, decoded in" in errors


ERRORS = {
    "unknown cache": (["data.cache=ram"], "config.data.cache is 'ram'; expected one of none, host"),
    "no grid": (
        ["data.cache=host", "data.cache_frames=0"],
        "config.data.cache is 'host' with config.data.cache_frames 0; .*cache_frames=16",
    ),
    "steps from the host": (
        ["data.cache=host", "steps_per_dispatch=4"],
        "steps_per_dispatch is 4 with config.data.cache 'host'; .*cache=device",
    ),
    "no steps": (["steps_per_dispatch=0"], "config.steps_per_dispatch is 0; expected 1 to"),
    "a negative grid": (["data.cache_frames=-1"], "config.data.cache_frames is -1; expected 0 to"),
}


@pytest.mark.parametrize(("fields", "clue"), ERRORS.values(), ids=ERRORS.keys())
def test_a_cache_that_cannot_be_is_one_line(fields, clue, synthetic_dataset, tmp_path):
    with pytest.raises(UserError, match=clue) as raised:
        run_of(tiny(synthetic_dataset, *fields), tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_sound_alone_needs_no_grid(synthetic_dataset, tmp_path):
    config = tiny(synthetic_dataset, "data.cache=host", "data.cache_frames=0")
    config.data.modalities = ("audio",)
    preflight.check_settings(config, tmp_path)


@pytest.mark.parametrize("kind", ["host", "device"])
def test_too_little_memory_is_one_line_and_exit_code_2(
    kind, synthetic_dataset, tmp_path, monkeypatch, capsys
):
    for module in (cache, batches):
        monkeypatch.setattr(module, "available_memory", lambda: 50_000)
    words = [f"--config.{word}" for word in (*TINY, f"data.path={synthetic_dataset}")]
    words += [f"--config.data.cache={kind}", "--config.frontend.augment.flip=0.0"]
    assert main(
        ["train", "--config", "mrpn.py:network=n0,size=study", *words, "--workdir",
         str(tmp_path / "run")]
    ) == 2  # fmt: skip
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("aver train: error: ")
    assert {"host": "GB of memory are available", "device": "is free for them"}[kind] in last


def test_an_older_run_without_these_fields_goes_on(decoding_run, synthetic_dataset, tmp_path):
    import shutil

    old = tmp_path / "old"
    shutil.copytree(decoding_run, old)
    content = json.loads((old / "config.json").read_text())
    del content["data"]["cache"], content["data"]["cache_frames"], content["steps_per_dispatch"]
    (old / "config.json").write_text(json.dumps(content))
    run_of(tiny(synthetic_dataset, "data.cache_frames=0"), old)
    with pytest.raises(UserError, match=r"data\.cache_frames was 0, now 5"):
        run_of(tiny(synthetic_dataset), old)
