"""The converter's `resnet`: a run folder that trainings start from, and errors in one line."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from aver_jax.finetune.init_from_run import initialize_from
from aver_jax.models import init_variables
from aver_jax.models.fusion.mrpn import Mrpn
from aver_jax.models.resnet.resnet import ResNet
from aver_jax.models.weights.resnet import convert_resnet
from aver_jax.runs.run_folder import load_run
from tools import convert_checkpoint

ROOT = Path(__file__).parents[2]
FIELDS = {"stage_sizes": (1, 1), "width": 4}
# orbax's, on a manager that only reads.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:orbax.*")


def torchvision_state(dims=2):
    """Random weights of a small ResNet of colours, under torchvision's names."""
    rng = np.random.default_rng(0)
    state = {"fc.weight": rng.normal(size=(3, 8)), "fc.bias": rng.normal(size=3)}

    def put(conv, norm, features, inputs, size):
        state[f"{conv}.weight"] = rng.normal(size=(features, inputs, *(size,) * dims))
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = rng.uniform(0.5, 1.5, features)

    put("conv1", "bn1", 4, 3, 7)
    for place, inputs, features in [("layer1.0", 4, 4), ("layer2.0", 4, 8)]:
        put(f"{place}.conv1", f"{place}.bn1", features, inputs, 3)
        put(f"{place}.conv2", f"{place}.bn2", features, features, 3)
    put("layer2.0.downsample.0", "layer2.0.downsample.1", 8, 4, 1)
    return {name: value.astype(np.float32) for name, value in state.items()}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "resnet.safetensors"
    save_file(torchvision_state(), path)
    return path


def run(capsys, source, out, *words):
    code = convert_checkpoint.main(["resnet", "--from", str(source), "--out", str(out), *words])
    return code, capsys.readouterr()


def test_folder_opens_as_a_run_and_a_training_starts_from_its_cnn(source, tmp_path, capsys):
    out = tmp_path / "run"
    code, printed = run(capsys, source, out, "--modality", "video")
    assert code == 0, printed.err
    assert "2d ResNet of 1-1 blocks, width 4" in printed.out
    assert f"--config.init.video/cnn={out}" in printed.out
    loaded = load_run(out)
    state = torchvision_state()
    cnn = {name: tree["video"]["cnn"] for name, tree in loaded.variables.items()}
    assert loaded.classes == ("untrained",)
    assert loaded.modalities == ("video",)
    np.testing.assert_array_equal(
        cnn["params"]["conv1"]["kernel"], state["conv1.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(
        cnn["batch_stats"]["layer2_0"]["downsample_bn"]["var"],
        state["layer2.0.downsample.1.running_var"],
    )

    fusion = Mrpn(num_classes=6, features=16, **FIELDS)
    shapes = jax.eval_shape(lambda: init_variables(fusion, jax.random.key(1)))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    started, report = initialize_from(fresh, {"video/cnn": str(out)}, tuple("abcdef"))
    assert report == [f"video/cnn from {out} (step 0)"]
    jax.tree.map(
        np.testing.assert_array_equal,
        {name: tree["video"]["cnn"] for name, tree in started.items()},
        cnn,
    )
    assert not started["params"]["audio"]["cnn"]["conv1"]["kernel"].any()


def test_colours_become_the_one_channel_of_sound(source, tmp_path, capsys):
    out = tmp_path / "run"
    code, printed = run(capsys, source, out, "--modality", "audio")
    assert code == 0, printed.err
    assert "note: the first layer's kernels are summed over the 3 channels" in printed.out
    loaded = load_run(out)
    assert loaded.modalities == ("audio",)
    # The converted network, and that of colours shown the spectrogram in all three.
    spectrogram = np.random.default_rng(1).normal(size=(1, 33, 25, 1)).astype(np.float32)
    cnn = {name: tree["audio"]["cnn"] for name, tree in loaded.variables.items()}
    colours = convert_resnet(torchvision_state()).variables
    apply = jax.jit(ResNet(**FIELDS).apply)
    found, _ = apply(cnn, spectrogram)
    expected, _ = apply(colours, np.repeat(spectrogram, 3, axis=-1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "modality", "message"),
    [
        (lambda s: s.pop("layer1.0.bn1.bias"), "video", "missing: layer1.0.bn1.bias"),
        (
            lambda s: s.update({"bn1.bias": np.zeros(5, np.float32)}),
            "video",
            "misshaped: bn1.bias (5,) instead of (4,)",
        ),
        (lambda s: s.clear(), "video", "is empty"),
        (lambda s: s.update(torchvision_state(dims=3)), "audio", "a 3D-ResNet is for --modality"),
    ],
)
def test_mistake_is_one_line_and_leaves_nothing(change, modality, message, tmp_path, capsys):
    state = torchvision_state()
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    out = tmp_path / "run"
    code, printed = run(capsys, tmp_path / "other.safetensors", out, "--modality", modality)
    assert (code, printed.err.count("\n")) == (2, 1)
    assert message in printed.err
    assert not out.exists()


def test_existing_folder_is_never_overwritten(source, tmp_path, capsys):
    code, printed = run(capsys, source, tmp_path, "--modality", "video")
    assert code == 2
    assert "exists already" in printed.err
