"""What a training writes down: lines that survive a kill, averages that count every step once."""

import json
import struct
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from tensorboardX.proto import event_pb2

from aver_jax.errors import UserError
from aver_jax.runs.metrics_log import MetricsLog, read_metrics
from aver_jax.training.progress import Progress


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(run: Path, restored: int, *steps: int) -> None:
    log = MetricsLog(run, restored)
    for step in steps:
        log.write(step, {"train/loss": step / 10})
    log.close()


def steps_of(path: Path) -> list[int]:
    return [record["step"] for record in read_metrics(path)]


def test_a_missing_log_is_empty(path):
    assert read_metrics(path) == []


@pytest.mark.parametrize("cut", ['{"step": 3, "tra', '{"step": 3, "train/loss": 0.', "{"])
def test_a_last_line_cut_short_by_a_kill_is_left_out(path, cut):
    path.write_text('{"step": 1}\n{"step": 2}\n' + cut)
    assert steps_of(path) == [1, 2]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(path):
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl line 2 is not JSON.*remove the line"):
        read_metrics(path)


def test_a_log_begins_with_its_first_step(tmp_path, path):
    write(tmp_path, 0, 2, 4)
    assert read_metrics(path) == [
        {"step": 2, "train/loss": 0.2},
        {"step": 4, "train/loss": 0.4},
    ]


def test_a_log_that_goes_on_is_cut_back_to_the_restored_step(tmp_path, path):
    write(tmp_path, 0, 2, 4, 6, 8)
    path.write_text(path.read_text() + '{"step": 10, "tra')
    write(tmp_path, 4, 6, 8)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6, 8]
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path, path):
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"train/loss": 0.5})
    assert steps_of(path) == [1]
    log.close()


def events_of(file: Path) -> list[event_pb2.Event]:
    """Reads TFRecords: each is its length, a checksum, the event and a checksum."""
    data, position, events = file.read_bytes(), 0, []
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        event = event_pb2.Event()
        event.ParseFromString(data[position + 12 : position + 12 + length])
        events.append(event)
        position += 12 + length + 4
    return events


def test_tensorboard_gets_the_same_numbers(tmp_path):
    write(tmp_path, 0, 2, 4)
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert "tfevents" in file.name
    scalars = [
        (event.step, value.tag, pytest.approx(value.simple_value))
        for event in events_of(file)
        for value in event.summary.value
    ]
    assert scalars == [(2, "train/loss", 0.2), (4, "train/loss", 0.4)]


def test_tensorboard_drops_what_the_run_does_again(tmp_path, monkeypatch):
    write(tmp_path, 0, 2, 4, 6)
    before = set((tmp_path / "tensorboard").iterdir())
    monkeypatch.setattr(time, "time", lambda: 2e9)  # the files are named by the second
    write(tmp_path, 4, 6)
    (file,) = set((tmp_path / "tensorboard").iterdir()) - before
    starts = [event.step for event in events_of(file) if event.HasField("session_log")]
    assert starts == [5]


def progress_of(run: Path, start: int = 0) -> Progress:
    def schedule(step):
        return 0.1 * (step + 1)

    return Progress(run, start, 10, 4, 5, schedule, True)


def metrics_of(loss: float, grad_norm: float = 1.0) -> dict:
    return {name: jnp.float32(v) for name, v in
            {"loss": loss, "war": loss / 20, "grad_norm": grad_norm}.items()}  # fmt: skip


def train(run: Path, clock, start: int = 0, stop: int = 10) -> None:
    """Ten steps whose loss is their number: a second each, a validation of 50 s every third."""
    progress = progress_of(run, start)
    for step in range(start + 1, stop + 1):
        clock.now += 1.0
        progress.add(step, metrics_of(float(step)))
        if step % 4 == 0 or step == 10:
            progress.log_training(step, 0.5)
        if step % 3 == 0:
            progress.settle()
            progress.pause()
            clock.now += 50.0
            progress.log_scores(step, {"validation/loss": 1.0, "validation/war": 0.5})
            progress.resume()
    progress.close()


def logged(run: Path, name: str) -> dict[int, float]:
    records = read_metrics(run / "metrics.jsonl")
    return {record["step"]: record[name] for record in records if name in record}


def test_every_step_counts_in_exactly_one_average_whatever_is_validated_between(tmp_path, clock):
    train(tmp_path, clock)
    # Means of 1..4, 5..8 and 9..10.
    assert logged(tmp_path, "train/loss") == {4: 2.5, 8: 6.5, 10: 9.5}
    assert logged(tmp_path, "validation/loss") == {3: 1.0, 6: 1.0, 9: 1.0}


def test_validations_do_not_slow_the_clips_per_second(tmp_path, clock):
    train(tmp_path, clock)
    assert logged(tmp_path, "clips_per_second") == {4: 4.0, 8: 4.0, 10: 4.0}


def test_a_line_tells_the_epoch_and_the_rate_of_its_step(tmp_path, clock):
    train(tmp_path, clock)
    assert logged(tmp_path, "epoch") == {3: 0.6, 4: 0.8, 6: 1.2, 8: 1.6, 9: 1.8, 10: 2.0}
    # Step n was done with the schedule's value at n - 1, times the plateau's scale.
    assert logged(tmp_path, "learning_rate") == pytest.approx({4: 0.2, 8: 0.4, 10: 0.5})


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stops_the_training_and_names_the_step(tmp_path, name, value):
    progress = progress_of(tmp_path)
    progress.add(1, metrics_of(1.0))
    progress.add(2, metrics_of(1.0) | {name: jnp.float32(value)})
    # It is read one step late, while the device works on the next.
    message = rf"{name} is {value} at step 2 \(learning rate 0\.2\).*lower config"
    with pytest.raises(UserError, match=message):
        progress.add(3, metrics_of(1.0))
    progress.close()


def test_before_a_validation_the_very_last_step_is_checked_too(tmp_path):
    progress = progress_of(tmp_path)
    progress.add(1, metrics_of(float("nan")))
    with pytest.raises(UserError, match="at step 1"):
        progress.settle()
    progress.close()
