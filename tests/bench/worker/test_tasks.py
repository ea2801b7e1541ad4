"""What aver_jax does for a case, and what it leaves for other sides."""

import dataclasses
import json

import numpy as np
import pytest

from aver_jax.bench.cases import SETS
from aver_jax.bench.worker import __main__ as worker
from aver_jax.bench.worker import case_files
from aver_jax.bench.worker.inputs import made_up_batch, made_up_shapes, noisy_variables
from aver_jax.bench.worker.protocol import answered, read_result
from aver_jax.bench.worker.tasks import make_ready

MINI = {case.task: case for case in reversed(SETS["mini"])}


def test_a_training_is_checked_by_losses_that_move():
    case = MINI["train"]
    work = make_ready(case)
    losses = work.result["losses"]
    assert losses.shape == (3,)
    assert np.ptp(losses) > 0.01
    # Calls go on with the training.
    assert work.call() < losses[0]
    again = make_ready(case)
    np.testing.assert_array_equal(again.result["losses"], losses)


def test_losses_are_the_same_on_any_number_of_devices():
    one, two = (make_ready(MINI["train"], devices=n).result["losses"] for n in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_no_layer_does_nothing():
    variables = noisy_variables(MINI["train"])
    assert all(np.ptp(leaf) > 0 for leaf in case_files.named_leaves(variables).values())


def test_what_other_sides_read_is_there(tmp_path):
    case = MINI["relevance"]
    work = make_ready(case)
    case_files.write(tmp_path, case, work, None, 2)
    told = json.loads((tmp_path / "case.json").read_text())
    assert told["case"]["name"] == case.name
    assert told["target"] == work.result["target"].tolist()
    assert told["frontend"]["normalization"] == "per_clip"
    with np.load(tmp_path / "variables.npz") as variables:
        assert variables["params/blocks/attn/qkv/kernel"].shape == (2, 32, 96)
        decayed = set(told["optimizer"]["decayed"])
        assert decayed == {name for name in variables if name.endswith("/kernel")}
    with np.load(tmp_path / "batch.npz") as batch:
        assert batch["frames"].dtype == np.uint8


def test_the_checked_augmentation_can_be_done_again():
    work = make_ready(MINI["augmentation"])
    assert {name: value.shape for name, value in work.factors.items()} == {
        "matrix": (2, 2, 3), "sigma": (2,), "contrast": (2,),
    }  # fmt: skip
    frames = work.result["frames"]
    assert frames.shape == work.batch["frames"].shape
    assert 0 <= frames.min() < frames.max() <= 255
    # Every call draws anew.
    assert not np.array_equal(work.call(), work.call())


def test_sound_is_of_different_lengths_and_silent_afterwards():
    case = dataclasses.replace(MINI["spectrogram"], batch_size=6)
    batch = made_up_batch(case)
    assert batch["audio_length"].max() == batch["audio"].shape[1] == 16_000
    assert len(set(batch["audio_length"])) > 1
    for audio, length in zip(batch["audio"], batch["audio_length"], strict=True):
        assert not audio[length:].any()


@pytest.mark.parametrize("case", SETS["mini"], ids=lambda case: case.name)
def test_shapes_are_those_of_the_batch(case):
    batch, shapes = made_up_batch(case), made_up_shapes(case, case.batch_size)
    assert {name: (s.shape, s.dtype) for name, s in shapes.items()} == {
        name: (array.shape, array.dtype) for name, array in batch.items()
    }


def test_a_worker_answers_in_one_line_also_when_it_fails(tmp_path):
    side = worker._Side()
    handlers = {"prepare": side.prepare, "time": side.time, "facts": side.facts}
    case = dataclasses.asdict(MINI["spectrogram"])
    words = {"do": "prepare", "case": case, "exchange": str(tmp_path), "side": "aver_jax"}
    said = answered(handlers, json.dumps(words))
    assert said["first_call_seconds"] > 0
    assert read_result(tmp_path, "aver_jax")["audio"].shape[2:] == (257, 250)
    timed = answered(handlers, json.dumps({"do": "time", "repeats": 2}))
    assert len(timed["seconds"]) == 2
    assert answered(handlers, json.dumps({"do": "facts"}))["peak_bytes"] > 2**20
    broken = json.dumps(words | {"case": case | {"task": "train", "model": {"name": "x"}}})
    assert answered(handlers, broken)["error"].startswith("ValueError: model.name is 'x'")
    assert "no request 'fly'" in answered(handlers, '{"do": "fly"}')["error"]
