"""The converter's command: run folders that open, and errors in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from aver_jax.runs.run_folder import load_run
from tools import convert_checkpoint

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests/reference/timesformer_divided_space_time.npz"


@pytest.fixture
def reference():
    with np.load(REFERENCE) as file:
        return {name: file[name] for name in file}


@pytest.fixture
def folder(tmp_path, reference):
    """A Hugging Face folder as `save_pretrained` and its image processor leave it."""
    weights = {
        name.removeprefix("weight/"): np.ascontiguousarray(value)
        for name, value in reference.items()
        if name.startswith("weight/")
    }
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    labels = {str(index): name for index, name in enumerate(["a", "b", "c", "d", "e", "f"])}
    config = {"model_type": "timesformer", "num_attention_heads": 3, "num_frames": 3}
    config |= {"attention_type": "divided_space_time", "id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def run(capsys, *words):
    code = convert_checkpoint.main(["timesformer", *map(str, words)])
    return code, capsys.readouterr()


# orbax's, on a manager that only reads.
@pytest.mark.filterwarnings("ignore::UserWarning:orbax.*")
def test_converted_folder_opens_as_a_run_and_computes_the_checkpoints_logits(
    folder, tmp_path, reference, capsys
):
    out = tmp_path / "run"
    code, printed = run(capsys, "--from", folder, "--out", out)
    assert code == 0, printed.err
    assert "6 classes, 3 frames of 16 px, normalisation timesformer" in printed.out
    loaded = load_run(out)
    model, variables, config = loaded
    assert loaded.classes == ("a", "b", "c", "d", "e", "f")
    assert (config.data.image_size, config.data.num_frames) == (16, 3)
    assert config.frontend.normalization == "timesformer"
    logits, _ = model.apply(variables, {"frames": reference["frames"].astype(np.float32)})
    np.testing.assert_allclose(logits, reference["logits"], rtol=1e-4, atol=1e-5)


def changed_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def changed_preprocessor(folder):
    content = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        ([], lambda f: (f / "model.safetensors").unlink(), "has no *.safetensors"),
        ([], lambda f: (f / "model.safetensors").write_bytes(b"x"), "not a whole safetensors"),
        ([], lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        ([], lambda f: changed_config(f, hidden_act="relu"), "hidden_act is 'relu'"),
        ([], lambda f: changed_config(f, attention_type="space_only"), "attention is divided"),
        ([], changed_preprocessor, "choose --normalization from"),
        (["--classes", "x,y"], None, "the head has 6 classes and 2 are named"),
        (["--new-head"], None, "--new-head needs --classes"),
        (["--image-size", "15"], None, "not a multiple of the patch size"),
    ],
)
def test_mistake_is_one_line_and_leaves_nothing(words, change, message, folder, tmp_path, capsys):
    if change:
        change(folder)
    code, printed = run(capsys, "--from", folder, "--out", tmp_path / "run", *words)
    assert code == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_missing_and_unknown_files_are_one_line(tmp_path, capsys):
    unknown = tmp_path / "weights.h5"
    unknown.touch()
    for path, message in [(tmp_path / "none.pt", "does not exist"), (unknown, "expected .safe")]:
        code, printed = run(capsys, "--from", path, "--out", tmp_path / "run")
        assert (code, printed.err.count("\n")) == (2, 1)
        assert message in printed.err


def test_existing_folder_is_never_overwritten(folder, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    code, printed = run(capsys, "--from", folder, "--out", out)
    assert code == 2
    assert "exists already" in printed.err
