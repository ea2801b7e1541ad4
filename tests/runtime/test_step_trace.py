"""Traces of training steps: the steps asked for, written however the training ends."""

import jax
import pytest
from ml_collections import ConfigDict

from aver_jax.cli import main
from aver_jax.config import load_config, override
from aver_jax.errors import UserError
from aver_jax.runtime.step_trace import StepTrace, check_range, parse_range
from aver_jax.training import hooks, job


def test_a_range_is_two_steps():
    assert parse_range("11:16") == (11, 16)


@pytest.mark.parametrize("text", ["", "3", "3:", ":3", "3:3", "0:2", "5:3", "a:b", "1:2:3", "-1:2"])
def test_what_is_no_range_is_one_line(text):
    with pytest.raises(UserError, match=r"^--profile is .*; expected START:STOP"):
        parse_range(text)


@pytest.fixture
def calls(monkeypatch):
    """What the profiler is told."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def dispatch(tmp_path, calls, steps, ends, total=12, done=0):
    """Does the steps up to each of `ends` in one dispatch; returns what happened."""
    with StepTrace(tmp_path, steps, done, total, True) as trace:
        for end in ends:
            with trace.step(end, end - done):
                calls.append(end)
            trace.dispatched(end, ())
            done = end
        calls.append("end")
    return calls


def test_the_steps_of_the_range_are_traced_once(tmp_path, calls):
    found = dispatch(tmp_path, calls, (3, 5), range(1, 7))
    assert found == [1, 2, "start", 3, 4, "stop", 5, 6, "end"]


def test_steps_dispatched_together_are_traced_together(tmp_path, calls):
    found = dispatch(tmp_path, calls, (3, 6), (2, 4, 8, 12))
    assert found == [2, "start", 4, 8, "stop", 12, "end"]


def test_a_dispatch_around_the_range_holds_it(tmp_path, calls):
    assert dispatch(tmp_path, calls, (3, 4), (8, 12)) == ["start", 8, "stop", 12, "end"]


def test_a_run_that_is_stopped_within_the_range_writes_what_it_has(tmp_path, calls):
    found = dispatch(tmp_path, calls, (11, 20), (10, 11, 12), total=30)
    assert found == [10, "start", 11, 12, "end", "stop"]


def test_nothing_is_traced_unless_asked(tmp_path, calls):
    assert dispatch(tmp_path, calls, None, (1, 12)) == [1, 12, "end"]


@pytest.mark.parametrize(
    ("done", "total", "clue"),
    [
        (0, 2, "--profile 3:5 begins outside of the steps that this training does, 1 to 2; give"),
        (3, 9, "--profile 3:5 begins outside of the steps that this training does, 4 to 9; give"),
        (0, 3, "--profile 3:5 ends behind the last step, 3; expected STOP up to 4"),
        (9, 9, "--profile 3:5: the run is finished at step 9; give another --workdir"),
    ],
)
def test_a_range_that_the_run_does_not_reach_is_one_line(done, total, clue):
    with pytest.raises(UserError, match=f"^{clue}"):
        check_range((3, 5), done, total)


def words(dataset, workdir):
    fields = (
        "model.width=16", "model.depth=1", "model.unroll=1", "model.num_heads=2",
        "data.image_size=16", "data.num_frames=2", "data.threads=0", "batch_size=4", "epochs=1.0",
        "evaluation.batch_size=12", f"data.path={dataset}",
    )  # fmt: skip
    config = "timesformer.py:size=demo,dataset=synthetic"
    return config, [f"--config.{field}" for field in fields], str(workdir)


def test_a_signal_leaves_the_trace_and_says_where_it_is(
    synthetic_dataset, tmp_path, monkeypatch, capsys
):
    class Stopped(hooks.StopSignal):
        @property
        def number(self):
            self.asked += 1
            return 15 if self.asked == 2 else 0  # after step 2 of 3

        @number.setter
        def number(self, value):
            self.asked = 0

    monkeypatch.setattr(hooks, "StopSignal", Stopped)
    name, fields, workdir = words(synthetic_dataset, tmp_path / "run")
    config = override(load_config(name), fields)
    with config.unlocked():
        # Most of the time of so small a training goes into compiling augmentations.
        config.frontend.augment = ConfigDict()
    with pytest.raises(SystemExit):
        job.train(config, workdir, report=False, profile=(2, 4))
    (file,) = (tmp_path / "run/profile").rglob("perfetto_trace.json.gz")
    assert list((tmp_path / "run/profile").rglob("*.xplane.pb"))
    told = capsys.readouterr().err
    assert f"trace of steps 2 to 2: tensorboard --logdir {tmp_path / 'run/profile'}" in told
    assert f"or open {file} at ui.perfetto.dev" in told


@pytest.mark.parametrize("given", ["5:3", "4:9"])
def test_a_wrong_range_is_exit_code_2(given, synthetic_dataset, tmp_path, capsys):
    name, fields, workdir = words(synthetic_dataset, tmp_path / "run")
    run = ["train", "--config", name, "--workdir", workdir, "--profile", given]
    assert main([*run, *fields]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("aver train: error: --profile")
    assert not (tmp_path / "run/profile").exists()
