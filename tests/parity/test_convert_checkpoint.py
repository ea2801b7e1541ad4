"""The converter on files that torch and transformers wrote."""

import numpy as np
import pytest
import torch

from aver_jax.runs.run_folder import load_run
from tools import convert_checkpoint, make_reference

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def model():
    return make_reference.noisy_model("divided_space_time", width=64, heads=1, hidden=128)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).normal(size=(2, 3, 16, 16, 3)).astype(np.float32)


def logits_of(source, out, frames, *words):
    assert convert_checkpoint.main(["timesformer", "--from", source, "--out", out, *words]) == 0
    ours, variables, _ = load_run(out)
    return np.asarray(ours.apply(variables, {"frames": frames})[0])


def logits_of_torch(model, frames):
    with torch.no_grad():
        return model(torch.tensor(frames).permute(0, 1, 4, 2, 3)).logits.numpy()


@pytest.mark.filterwarnings("ignore::UserWarning:orbax.*")
def test_folder_of_transformers_gives_its_logits(model, frames, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    found = logits_of(str(tmp_path / "saved"), str(tmp_path / "run"), frames)
    np.testing.assert_allclose(found, logits_of_torch(model, frames), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning:orbax.*")
def test_torch_file_for_more_frames_gives_the_logits_of_transformers(
    model, frames, tmp_path, monkeypatch
):
    source = tmp_path / "checkpoint.pyth"
    torch.save({"model_state": model.state_dict(), "epoch": 3, "cfg": "TRAIN: ..."}, source)
    more = np.concatenate([frames, frames[:, ::-1]], axis=1)
    # transformers resizes the time embeddings itself, to the nearest; here it finds them ready.
    monkeypatch.setattr(model.config, "num_frames", 6)
    embeddings = model.timesformer.embeddings
    times = embeddings.time_embeddings.detach().mT
    times = torch.nn.functional.interpolate(times, size=6, mode="linear").mT
    monkeypatch.setattr(embeddings, "time_embeddings", torch.nn.Parameter(times))
    expected = logits_of_torch(model, more)
    found = logits_of(str(source), str(tmp_path / "run"), more, "--num-frames", "6")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class Trojan:
    def __reduce__(self):
        return print, ("code ran",)


def test_torch_file_that_could_run_code_is_refused(tmp_path, capsys):
    source = tmp_path / "checkpoint.pth"
    torch.save({"model": Trojan()}, source)
    words = ["timesformer", "--from", str(source), "--out", str(tmp_path / "run")]
    assert convert_checkpoint.main(words) == 2
    printed = capsys.readouterr()
    assert "cannot be read as plain weights" in printed.err
    assert "code ran" not in printed.out
