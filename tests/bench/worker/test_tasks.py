"""What aver_jax does for a case, and the files it writes for other implementations."""

import dataclasses
import json

import numpy as np
import pytest

from aver_jax.bench.cases import SETS
from aver_jax.bench.worker import __main__ as worker
from aver_jax.bench.worker.case_files import CaseFiles, read_outputs
from aver_jax.bench.worker.inputs import (
    batch_shapes,
    named_leaves,
    noisy_variables,
    synthetic_batch,
)
from aver_jax.bench.worker.protocol import reply_to
from aver_jax.bench.worker.tasks import case_files, prepare_case

MINI = {case.task: case for case in reversed(SETS["mini"])}


def test_losses_of_a_training_change():
    case = MINI["train"]
    prepared = prepare_case(case)
    losses = prepared.outputs["losses"]
    assert losses.shape == (3,)
    assert np.ptp(losses) > 0.01
    # Calls go on with the training.
    assert prepared.call() < losses[0]
    again = prepare_case(case)
    np.testing.assert_array_equal(again.outputs["losses"], losses)


def test_losses_are_the_same_on_any_number_of_devices():
    one, two = (prepare_case(MINI["train"], devices=n).outputs["losses"] for n in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_every_parameter_has_noise():
    variables = noisy_variables(MINI["train"])
    assert all(np.ptp(leaf) > 0 for leaf in named_leaves(variables).values())


def test_files_hold_what_other_implementations_need(tmp_path):
    case = MINI["relevance"]
    prepared = prepare_case(case)
    case_files(tmp_path, case, prepared).write()
    files = CaseFiles.read(tmp_path)
    assert files.case["name"] == case.name
    assert files.settings["target"] == prepared.outputs["target"].tolist()
    assert files.settings["frontend"]["normalization"] == "per_clip"
    assert files.variables["params/blocks/attn/qkv/kernel"].shape == (2, 32, 96)
    decayed = set(files.settings["optimizer"]["decayed"])
    assert decayed == {name for name in files.variables if name.endswith("/kernel")}
    assert files.batch["frames"].dtype == np.uint8
    assert files.factors == {}


def test_the_compared_augmentation_is_reproducible():
    prepared = prepare_case(MINI["augmentation"])
    assert {name: value.shape for name, value in prepared.factors.items()} == {
        "matrix": (2, 2, 3), "sigma": (2,), "contrast": (2,),
    }  # fmt: skip
    frames = prepared.outputs["frames"]
    assert frames.shape == prepared.batch["frames"].shape
    assert 0 <= frames.min() < frames.max() <= 255
    # Every call draws anew.
    assert not np.array_equal(prepared.call(), prepared.call())


def test_audio_has_different_lengths_and_is_silent_afterwards():
    case = dataclasses.replace(MINI["spectrogram"], batch_size=6)
    batch = synthetic_batch(case)
    assert batch["audio_length"].max() == batch["audio"].shape[1] == 16_000
    assert len(set(batch["audio_length"])) > 1
    for audio, length in zip(batch["audio"], batch["audio_length"], strict=True):
        assert not audio[length:].any()


@pytest.mark.parametrize("case", SETS["mini"], ids=lambda case: case.name)
def test_shapes_are_those_of_the_batch(case):
    batch, shapes = synthetic_batch(case), batch_shapes(case, case.batch_size)
    assert {name: (s.shape, s.dtype) for name, s in shapes.items()} == {
        name: (array.shape, array.dtype) for name, array in batch.items()
    }


def test_a_worker_replies_in_one_line_also_when_it_fails(tmp_path):
    handlers = worker.Worker().handlers()
    case = dataclasses.asdict(MINI["spectrogram"])
    words = {"do": "prepare", "case": case, "folder": str(tmp_path), "implementation": "aver_jax"}
    reply = reply_to(handlers, json.dumps(words))
    assert reply["first_call_seconds"] > 0
    assert read_outputs(tmp_path, "aver_jax")["audio"].shape[2:] == (257, 250)
    timed = reply_to(handlers, json.dumps({"do": "time", "repeats": 2}))
    assert len(timed["seconds"]) == 2
    assert reply_to(handlers, json.dumps({"do": "metadata"}))["peak_bytes"] > 2**20
    broken = json.dumps(words | {"case": case | {"task": "train", "model": {"name": "x"}}})
    assert reply_to(handlers, broken)["error"].startswith("ValueError: model.name is 'x'")
    assert "no request 'fly'" in reply_to(handlers, '{"do": "fly"}')["error"]
