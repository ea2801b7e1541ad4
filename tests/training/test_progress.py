"""The share of waiting for data, and lines of steps that were dispatched together."""

import jax.numpy as jnp
import pytest

from aver_jax.errors import UserError
from aver_jax.runs.metrics_log import read_metrics
from aver_jax.training.progress import Progress


def progress_of(run, start=0) -> Progress:
    return Progress(run, start, 12, 4, 6, lambda step: 0.1, True)


def metrics_of(*losses: float) -> dict:
    values = jnp.array(losses if len(losses) > 1 else losses[0], jnp.float32)
    return {"loss": values, "war": values / 20, "grad_norm": values}


def logged(run, name):
    records = read_metrics(run / "metrics.jsonl")
    return {record["step"]: record[name] for record in records if name in record}


def one_step(progress, clock, wait, work):
    with progress.waiting():
        clock.now += wait
    clock.now += work


def test_the_share_of_waiting_is_that_of_the_lines_own_steps(tmp_path, clock):
    progress = progress_of(tmp_path)
    for step, wait in enumerate((0.5, 1.5, 0.0, 0.0, 3.0, 0.0), start=1):
        one_step(progress, clock, wait, work=1.0)
        progress.add(step, metrics_of(1.0))
        if step % 2 == 0:
            progress.log_training(step, 1.0)
        if step == 3:  # a validation is neither training nor waiting
            progress.pause()
            clock.now += 100.0
            progress.resume()
    progress.close()
    assert logged(tmp_path, "data_wait") == pytest.approx({2: 2 / 4, 4: 0.0, 6: 3 / 5})
    assert logged(tmp_path, "clips_per_second") == pytest.approx({2: 2.0, 4: 4.0, 6: 8 / 5})


def test_steps_of_one_dispatch_share_its_time_and_are_averaged_by_the_lines(tmp_path, clock):
    progress = progress_of(tmp_path)
    # Lines every three steps; dispatches of four, of 4 s and 8 s, a quarter and a half waited.
    one_step(progress, clock, wait=1.0, work=3.0)
    progress.add(4, metrics_of(1, 2, 3, 4), 4)
    progress.log_training(3, 1.0)
    one_step(progress, clock, wait=4.0, work=4.0)
    progress.add(8, metrics_of(5, 6, 7, 8), 4)
    progress.log_training(6, 1.0)
    one_step(progress, clock, wait=0.0, work=2.0)
    progress.add(9, metrics_of(9.0))
    progress.log_training(9, 1.0)
    progress.close()
    assert logged(tmp_path, "train/loss") == {3: 2.0, 6: 5.0, 9: 8.0}
    # Seconds of the steps: 1 1 1 1 2 2 2 2 2.
    assert logged(tmp_path, "clips_per_second") == pytest.approx({3: 4.0, 6: 12 / 5, 9: 2.0})
    assert logged(tmp_path, "data_wait") == pytest.approx({3: 1 / 4, 6: 2.25 / 5, 9: 2 / 6})


def test_two_lines_may_come_from_one_dispatch(tmp_path, clock):
    progress = progress_of(tmp_path)
    one_step(progress, clock, wait=0.0, work=4.0)
    progress.add(4, metrics_of(1, 2, 3, 4), 4)
    progress.log_training(2, 1.0)
    progress.log_training(4, 1.0)
    progress.close()
    assert logged(tmp_path, "train/loss") == {2: 1.5, 4: 3.5}
    assert logged(tmp_path, "clips_per_second") == {2: 4.0, 4: 4.0}


def test_the_seconds_of_the_start_are_on_the_first_line_alone(tmp_path, clock):
    progress = progress_of(tmp_path)
    for step in (1, 2):
        clock.now += 1.0
        progress.add(step, metrics_of(1.0))
        if step == 1:
            progress.started(began=clock.now - 7.5)
        progress.log_training(step, 1.0)
    progress.close()
    assert logged(tmp_path, "startup_seconds") == {1: 7.5}


def test_a_dispatch_that_diverges_names_its_first_bad_step(tmp_path):
    progress = progress_of(tmp_path)
    progress.add(4, metrics_of(1, 2, float("nan"), float("nan")), 4)
    with pytest.raises(UserError, match=r"loss is nan at step 3 "):
        progress.settle()
    progress.close()
