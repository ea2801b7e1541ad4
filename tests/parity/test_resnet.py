"""ResNet-18 against transformers', layer by layer, and the 3-D net against torch's modules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from aver_jax.models.max_pool import max_pool
from aver_jax.models.resnet.resnet import ResNet
from aver_jax.models.weights.resnet import convert_resnet
from aver_jax.runs.run_folder import load_run
from tools import convert_checkpoint

pytestmark = pytest.mark.parity

# Even and odd, colours and one channel; the second is the thesis' segment of sound.
INPUTS = {"frames": (2, 96, 65, 3), "sound": (2, 257, 250, 1)}


def relative_error(found, expected):
    """The largest difference, relative to the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12)


def channels_last(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def channels_first(x):
    return torch.tensor(np.moveaxis(x, -1, 1).copy())


def random_norms(module, rng):
    """Draw all parameters and statistics of the norms, which fresh modules have at 0 and 1."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            for name in ("weight", "bias", "running_mean", "running_var"):
                low, high = (0.5, 1.5) if name in ("weight", "running_var") else (-0.5, 0.5)
                tensor = getattr(part, name)
                drawn = rng.uniform(low, high, tensor.shape)
                tensor.data = torch.tensor(drawn, dtype=torch.float32)
    return module


def tensors(module, gradients=False):
    """The state of a module as the converter reads it; with its gradients for its parameters."""
    state = {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}
    if gradients:
        state |= {name: value.grad.numpy() for name, value in module.named_parameters()}
    return state


@functools.partial(jax.jit, static_argnames=("model", "train"))
def computed(model, variables, x, cotangent, train):
    """Outputs, moved statistics, every module's output, and the gradients, by our code."""

    def features(params, x):
        (pooled, maps), collected = model.apply(
            {**variables, "params": params},
            x,
            train=train,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        return pooled, (maps, collected["batch_stats"], collected["intermediates"])

    pooled, pullback, (maps, stats, inner) = jax.vjp(features, variables["params"], x, has_aux=True)
    grads, grad_x = pullback(cotangent)
    return {
        "pooled": pooled,
        "maps": maps,
        "stats": stats,
        "inner": inner,
        "grads": grads,
        "grad_x": grad_x,
    }


@pytest.fixture(scope="module", params=INPUTS)
def case(request):
    """Torch's model with everything random, its state, and an input."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shape = INPUTS[request.param]
    config = ResNetConfig(
        num_channels=shape[-1],
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
    )
    return random_norms(ResNetModel(config), rng), rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_resnet18_is_that_of_transformers(case, train):
    module, x = case
    start = tensors(module)
    converted = convert_resnet(start)
    assert converted.fields == {
        "stage_sizes": (2, 2, 2, 2),
        "width": 64,
        "stem": "conv7",
        "dims": 2,
    }
    cotangent = np.random.default_rng(1).normal(size=(len(x), 512)).astype(np.float32)
    ours = computed(ResNet(), converted.variables, x, cotangent, train)

    module.train(train)
    module.zero_grad()
    theirs_x = channels_first(x).requires_grad_()
    theirs = module(theirs_x, output_hidden_states=True)
    theirs.pooler_output.flatten(1).backward(torch.tensor(cotangent))
    expected = convert_resnet(tensors(module, gradients=True)).variables
    module.load_state_dict({name: torch.tensor(value) for name, value in start.items()})

    # Without stages, the maps are the stem's, after its max-pool.
    (_, stem), _ = jax.jit(
        functools.partial(ResNet(stage_sizes=()).apply, train=train, mutable=["batch_stats"])
    )(converted.variables, x)
    layers = {"max-pool": (stem, channels_last(theirs.hidden_states[0]))}
    for stage in range(4):
        found = ours["inner"][f"layer{stage + 1}_1"]["__call__"][0]
        layers[f"stage {stage + 1}"] = (found, channels_last(theirs.hidden_states[stage + 1]))
    layers["maps"] = (ours["maps"], channels_last(theirs.last_hidden_state))
    layers["features"] = (ours["pooled"], theirs.pooler_output.flatten(1).detach().numpy())
    errors = {name: relative_error(*pair) for name, pair in layers.items()}
    assert max(errors.values()) < 1e-5, errors

    errors = jax.tree.map(relative_error, ours["stats"], expected["batch_stats"])
    assert max(jax.tree.leaves(errors)) < 1e-5, errors
    if train and x.shape[-1] == 1:
        # Of a million activations some lie within rounding of 0, and with either sign of one the
        # gradients differ by 1e-2: torch's own do, in float32 and float64.
        return
    errors = jax.tree.map(relative_error, ours["grads"], expected["params"])
    assert max(jax.tree.leaves(errors)) < 1e-5, errors
    assert relative_error(ours["grad_x"], channels_last(theirs_x.grad)) < 1e-5


class Block3d(torch.nn.Module):
    def __init__(self, inputs, features, stride):
        super().__init__()
        conv = functools.partial(torch.nn.Conv3d, bias=False)
        self.conv1 = conv(inputs, features, 3, stride, 1)
        self.bn1 = torch.nn.BatchNorm3d(features)
        self.conv2 = conv(features, features, 3, 1, 1)
        self.bn2 = torch.nn.BatchNorm3d(features)
        self.downsample = None
        if inputs != features:
            norm = torch.nn.BatchNorm3d(features)
            self.downsample = torch.nn.Sequential(conv(inputs, features, 1, stride), norm)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet3d(torch.nn.Module):
    """3D-ResNet of Hara et al. with projections (their shortcut B), without its classifier."""

    def __init__(self, width, depths):
        super().__init__()
        self.conv1 = torch.nn.Conv3d(3, width, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = torch.nn.BatchNorm3d(width)
        self.maxpool = torch.nn.MaxPool3d(3, 2, 1)
        inputs, self.layers = width, []
        for stage, depth in enumerate(depths):
            features = width * 2**stage
            blocks = [Block3d(inputs, features, 2 if stage else 1)]
            blocks += [Block3d(features, features, 1) for _ in range(depth - 1)]
            self.layers.append(torch.nn.Sequential(*blocks))
            setattr(self, f"layer{stage + 1}", self.layers[-1])
            inputs = features

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_3d_resnet_is_torchs(train):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    module = random_norms(ResNet3d(8, depths=(2, 1, 1, 1)), rng).train(train)
    x = rng.normal(size=(4, 9, 45, 38, 3)).astype(np.float32)
    cotangent = rng.normal(size=(4, 64)).astype(np.float32)
    converted = convert_resnet(tensors(module))
    ours = computed(ResNet(**converted.fields), converted.variables, x, cotangent, train)

    theirs_x = channels_first(x).requires_grad_()
    maps = module(theirs_x)
    maps.mean((2, 3, 4)).backward(torch.tensor(cotangent))
    expected = convert_resnet(tensors(module, gradients=True)).variables
    assert relative_error(ours["maps"], channels_last(maps)) < 1e-5
    errors = jax.tree.map(relative_error, ours["stats"], expected["batch_stats"])
    assert max(jax.tree.leaves(errors)) < 1e-5, errors
    errors = jax.tree.map(relative_error, ours["grads"], expected["params"])
    assert max(jax.tree.leaves(errors)) < 1e-5, errors
    assert relative_error(ours["grad_x"], channels_last(theirs_x.grad)) < 1e-5


@pytest.mark.parametrize("shape", [(2, 7, 8, 3), (1, 5, 6, 7, 2)])
def test_max_pool_and_its_gradient_are_torchs_with_equal_values_too(shape):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, shape).astype(np.float32)
    pool = torch.nn.MaxPool2d(3, 2, 1) if len(shape) == 4 else torch.nn.MaxPool3d(3, 2, 1)
    theirs_x = channels_first(x).requires_grad_()
    theirs = pool(theirs_x)
    ours, pullback = jax.vjp(max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(ours, channels_last(theirs))
    cotangent = rng.normal(size=ours.shape).astype(np.float32)
    theirs.backward(channels_first(cotangent))
    np.testing.assert_allclose(pullback(cotangent)[0], channels_last(theirs_x.grad), atol=1e-6)


# orbax's, on a manager that only reads.
@pytest.mark.filterwarnings("ignore::UserWarning:orbax.*")
def test_torch_file_in_wrappings_gives_the_features_of_its_network(tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    module = random_norms(ResNet3d(4, depths=(1, 1)), rng).eval()
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    words = ["--from", str(tmp_path / "checkpoint.pth"), "--out", str(tmp_path / "run")]
    assert convert_checkpoint.main(["resnet", *words, "--modality", "video"]) == 0

    model, variables, _ = load_run(tmp_path / "run")
    x = rng.normal(size=(2, 5, 20, 17, 3)).astype(np.float32)
    _, taps = jax.jit(functools.partial(model.apply, capture=("maps_video",)))(
        variables, {"frames": x}
    )
    assert relative_error(taps["maps_video"], channels_last(module(channels_first(x)))) < 1e-5
