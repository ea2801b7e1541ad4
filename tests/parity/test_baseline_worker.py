"""The worker of the PyTorch implementations, and its input pipeline."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from aver_jax.bench.cases import Case
from aver_jax.bench.worker import tasks
from aver_jax.bench.worker.case_files import CaseFiles
from aver_jax.bench.worker.inputs import write_synthetic_dataset
from aver_jax.input import ClipShape, clip_arrays, open_dataset
from tools.baseline import choose, implementations
from tools.baseline.data import Clips, loader
from tools.baseline.inference import Inference

pytestmark = pytest.mark.parity

ROOT = Path(__file__).parents[2]
MODEL = {
    "name": "timesformer", "attention": "divided_space_time", "width": 32, "depth": 1,
    "num_heads": 2, "patch_size": 8, "image_size": 16, "num_frames": 3, "drop_path": 0.0,
    "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    case = Case("relevance", "relevance", MODEL, 4, 3, 16, 0.0, ("frames",))
    tasks.case_files(folder, case, tasks.prepare_case(case)).write()
    return folder


def answers_to(requests):
    done = subprocess.run(
        [sys.executable, "-m", "tools.baseline.worker"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_worker_answers_every_request(folder):
    prepare = {"do": "prepare", "case": {}, "folder": str(folder)}
    early, skipped, ready, timed, metadata, unknown, dropped = answers_to(
        [
            {"do": "time", "repeats": 1},
            {**prepare, "implementation": "torch_transformers"},
            {**prepare, "implementation": "torch_hooks", "clips": 2},
            {"do": "time", "repeats": 3},
            {"do": "metadata"},
            {"do": "dance"},
            {"do": "drop"},
            {"do": "quit"},
        ]
    )
    assert "prepare" in early["error"]
    assert "no such" in skipped["skip"]
    assert ready["clips"] == 2
    assert ready["first_call_seconds"] > 0
    assert ready["compile_seconds"] is None
    assert len(timed["seconds"]) == 3
    assert metadata["peak_bytes"] > 0
    assert metadata["versions"]["torch"] == torch.__version__
    assert "dance" in unknown["error"]
    assert dropped == {}
    with np.load(folder / "outputs_torch_hooks.npz") as result:
        assert result["maps"].shape == (2, 3, 2, 2)


def test_jax_and_torch_stay_apart():
    """The torch worker measures its own memory and threads, so jax must not be in its process."""
    script = (
        "import sys, tools.baseline.worker, tools.baseline.data; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_fastest_variant_is_chosen_and_a_failing_one_left_out():
    class Slow:
        def call(self):
            torch.ones(400, 400) @ torch.ones(400, 400)

    class Fast:
        def call(self):
            return None

    def broken():
        raise RuntimeError("not on this device")

    choice = choose.fastest({"slow": Slow, "broken": broken, "fast": Fast}, seconds=0.01)
    assert choice.name == "fast"
    assert isinstance(choice.work, Fast)
    assert "not on this device" in choice.sentence()
    with pytest.raises(RuntimeError):
        choose.fastest({"broken": broken, "fast": Fast})


def test_a_graph_of_compiled_blocks_starts_when_the_blocks_are_compiled():
    blocks = choose.Choice("blocks", None, 20.0, {"blocks": 2.0, "no": 3.0}, {})
    graph = choose.Choice("graph", None, 4.0, {"blocks": 2.0, "graph": 1.0}, {})
    assert implementations._joined(blocks, graph, on_top=True).first_call_seconds == 24.0
    assert implementations._joined(blocks, graph).first_call_seconds == 4.0
    slower = choose.Choice("blocks", None, 0.1, {"blocks": 2.0, "graph": 2.5}, {})
    joined = implementations._joined(blocks, slower, on_top=True)
    assert (joined.first_call_seconds, joined.seconds["graph"]) == (20.0, 2.5)


def test_models_that_the_baseline_lacks_are_refused(folder):
    found = CaseFiles.read(folder)
    with pytest.raises(implementations.NotSupported):
        implementations.prepare_case("torch_flax", found, torch.device("cpu"))
    found.case["model"] = found.case["model"] | {"attention": "joint_space_time"}
    with pytest.raises(ValueError, match="divided_space_time alone"):
        implementations.Classifier(found, torch.device("cpu"), implementations.Mode())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "data"
    write_synthetic_dataset(folder, clips=6, frames=20, size=48)
    return folder


@pytest.mark.parametrize("size", [32, 48, 64])
def test_clips_are_those_of_aver_jax(dataset, size, monkeypatch):
    clips = Clips(dataset, 4, size, max_seconds=0.5, modalities=("frames", "audio"))
    drawn = torch.tensor([0.4, 0.7])
    monkeypatch.setattr(torch, "rand", lambda count: drawn)
    found = clips[2]
    length = 1 - 0.5 * 0.4
    start = (1 - length) * 0.7
    shape = ClipShape(4, size, 0.5, ("frames", "audio"))
    source = open_dataset(dataset).source
    expected = clip_arrays([source[2]], [(start, start + length)], shape)
    for name in ("frames", "audio", "audio_length"):
        np.testing.assert_array_equal(found[name], expected[name][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_every_pass_has_every_clip_once(dataset, workers):
    clips = Clips(dataset, 2, 32)
    assert len(clips) == 6
    batches = iter(loader(clips, 4, workers, pinned=False))
    taken = [next(batches) for _ in range(3)]
    assert taken[0]["frames"].shape == (4, 2, 32, 32, 3)
    assert taken[0]["frames"].dtype == torch.uint8
    rows = torch.cat([batch["row"] for batch in taken]).tolist()
    assert sorted(rows[:6]) == sorted(rows[6:]) == list(range(6))


@pytest.mark.slow
# The compiler warns of its own doing: deprecated parts of torch, gradients that it looks for.
@pytest.mark.filterwarnings("ignore")
def test_torch_tuned_chooses_and_agrees(tmp_path):
    case = Case("inference", "inference", MODEL, 2, 3, 16, 0.0, ("frames",))
    expected = tasks.prepare_case(case)
    tasks.case_files(tmp_path, case, expected).write()
    files = CaseFiles.read(tmp_path)
    found = implementations.prepare_case("torch_tuned", files, torch.device("cpu"))
    assert isinstance(found.choice.work, Inference)
    assert set(found.choice.seconds) == {"eager", "compiled blocks"}
    np.testing.assert_allclose(
        found.outputs["logits"], expected.outputs["logits"], rtol=1e-4, atol=1e-5
    )
