"""Late fusion, N0, N1 and MRPN against equations 26 to 32 of the thesis, written in torch.

Train and eval mode are compared. The torch side is plain: it knows no padding (it computes valid
segments alone) and no masks, and works in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aver_jax.models.counting import parameter_count
from aver_jax.models.fusion.mrpn import Mrpn

pytestmark = pytest.mark.parity

# So many clips that float32 can hold the gradients through their statistics to 1e-5.
CLIPS, FRAMES, SEGMENTS, CLASSES = 32, 3, 4, 5
LENGTHS = np.resize([4, 1, 2, 4, 3, 2, 1], CLIPS).astype(np.int32)


class Block(nn.Module):
    def __init__(self, inner, outer, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample_conv = self.downsample_bn = None
        if stride > 1 or inner != outer:
            self.downsample_conv = nn.Conv2d(inner, outer, 1, stride, bias=False)
            self.downsample_bn = nn.BatchNorm2d(outer)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.downsample_conv is not None:
            x = self.downsample_bn(self.downsample_conv(x))
        return F.relu(x + y)


class ResNet(nn.Module):
    def __init__(self, channels, width, stage_sizes):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = []
        inner = width
        for stage, count in enumerate(stage_sizes):
            for block in range(count):
                outer = width * 2**stage
                name = f"layer{stage + 1}_{block}"
                setattr(self, name, Block(inner, outer, 2 if stage and not block else 1))
                self.blocks.append(name)
                inner = outer

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for name in self.blocks:
            x = getattr(self, name)(x)
        return x.mean((2, 3))


class Branch(nn.Module):
    """f_m = A_m(F_m(x_m)) and f^_m = FeatureNorm(f_m) (eqs 24, 26)."""

    def __init__(self, channels, width, stage_sizes, features):
        super().__init__()
        self.cnn = ResNet(channels, width, stage_sizes)
        self.aggregator = nn.LSTM(width * 2 ** (len(stage_sizes) - 1), features, batch_first=True)
        self.norm = nn.BatchNorm1d(features, affine=False)

    def forward(self, x, lengths):
        steps = self.cnn(torch.cat([clip[:n] for clip, n in zip(x, lengths, strict=True)]))
        packed = nn.utils.rnn.pack_sequence(torch.split(steps, lengths), enforce_sorted=False)
        _, (last, _) = self.aggregator(packed)
        return self.norm(last[0])


class Scoring(nn.Module):
    """Dense -> ReLU -> FeatureNorm -> Dense (eq. 25)."""

    def __init__(self, features, hidden, classes):
        super().__init__()
        self.dense = nn.Linear(features, hidden)
        self.norm = nn.BatchNorm1d(hidden, affine=False)
        self.head = nn.Linear(hidden, classes)

    def forward(self, g):
        return self.head(self.norm(F.relu(self.dense(g))))


class FusionComponent(nn.Module):
    """Concatenate -> FeatureNorm -> Scoring (eqs 26, 27)."""

    def __init__(self, features, hidden, classes):
        super().__init__()
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.scoring = Scoring(features, hidden, classes)

    def forward(self, g_v, g_a):
        return self.scoring(self.norm(torch.cat([g_v, g_a], dim=1)))


class ResPerceptron(nn.Module):
    """f' = f^ + FeatureNorm(Sigmoid(Dense(f^))) (eq. 29)."""

    def __init__(self, features):
        super().__init__()
        self.dense = nn.Linear(features, features)
        self.norm = nn.BatchNorm1d(features, affine=False)

    def forward(self, f):
        return f + self.norm(torch.sigmoid(self.dense(f)))


class Side(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.head = nn.Linear(features, classes)

    def forward(self, g):
        return self.head(g)


class Network(nn.Module):
    """Late fusion, N0, N1, N2 (eqs 30, 31, 32); returns s_va, s_v, s_a.

    In late fusion the branches and their scores come from earlier trainings and stay as they are:
    always in eval mode, without gradients.
    """

    def __init__(self, network, classes, width, stage_sizes, features, hidden):
        super().__init__()
        self.network = network
        self.video = Branch(3, width, stage_sizes, features)
        self.audio = Branch(1, width, stage_sizes, features)
        self.fusion = FusionComponent(2 * features, hidden, classes)
        if network == "late":
            self.video_scoring = Scoring(features, hidden, classes)
            self.audio_scoring = Scoring(features, hidden, classes)
            for parameter in self.earlier_parameters():
                parameter.requires_grad = False
        elif network != "n0":
            self.video_side = Side(features, classes)
            self.audio_side = Side(features, classes)
        if network == "n2":
            self.video_residual = ResPerceptron(features)
            self.audio_residual = ResPerceptron(features)

    def earlier(self):
        return [self.video, self.audio, self.video_scoring, self.audio_scoring]

    def earlier_parameters(self):
        return [parameter for module in self.earlier() for parameter in module.parameters()]

    def train(self, mode=True):
        super().train(mode)
        if self.network == "late":
            for module in self.earlier():
                module.eval()
        return self

    def forward(self, frames, audio, lengths):
        g_v = self.video(frames, [frames.shape[1]] * len(frames))
        g_a = self.audio(audio, lengths)
        if self.network == "n2":
            g_v, g_a = self.video_residual(g_v), self.audio_residual(g_a)
        if self.network == "n0":
            return self.fusion(g_v, g_a), None, None
        if self.network == "late":
            return self.fusion(g_v, g_a), self.video_scoring(g_v), self.audio_scoring(g_a)
        return self.fusion(g_v, g_a), self.video_side(g_v), self.audio_side(g_a)

    def loss(self, outputs, labels):
        """L = L_va, or in N1 and N2 L_v + L_a + L_va (eq. 28)."""
        if self.network == "late":
            outputs = outputs[:1]
        return sum(F.cross_entropy(scores, labels) for scores in outputs if scores is not None)


LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def in_our_layout(model, shapes, gradient=False):
    """Return torch's parameters or statistics (or gradients) as a tree of the shapes given."""
    values = {
        name: (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        if gradient
        else parameter
        for name, parameter in (*model.named_parameters(), *model.named_buffers())
    }

    def leaf(path, shape):
        *parents, last = [key.key for key in path]
        if "aggregator" in parents:
            prefix = ".".join(parents[: parents.index("aggregator") + 1])
            if last == "bias":
                of_input, of_state = (values[f"{prefix}.bias_{kind}_l0"] for kind in ("ih", "hh"))
                value = of_input if gradient else of_input + of_state
            else:
                kind = "ih" if last == "input_kernel" else "hh"
                value = values[f"{prefix}.weight_{kind}_l0"].T
        elif last == "kernel":
            value = values[".".join([*parents, "weight"])]
            value = value.permute(2, 3, 1, 0) if value.ndim == 4 else value.T
        else:
            value = values[".".join([*parents, LEAVES[last]])]
        value = value.detach().numpy().astype(np.float32).copy()
        assert value.shape == shape.shape, path
        return value

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def relative_errors(found, expected):
    """Return {path: largest difference over the largest value}; of zeros, the difference."""

    def error(path, a, b):
        assert a.shape == b.shape
        return np.abs(np.asarray(a) - b).max() / (np.abs(b).max() or 1)

    errors = jax.tree_util.tree_map_with_path(error, found, expected)
    return {
        jax.tree_util.keystr(path): value
        for path, value in jax.tree_util.tree_leaves_with_path(errors)
    }


def trained_before(model, arguments):
    """Give the norms of branches and their scores the clips' statistics, as training would.

    Without, features of frozen branches hardly differ from clip to clip, and the fusion's norm
    would magnify float32's last digits.
    """
    parts = [part for module in model.earlier() for part in module.modules()]
    norms = [part for part in parts if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(*arguments)


@pytest.fixture(scope="module", params=["late", "n0", "n1", "n2"])
def both(request):
    """Logits, loss, gradients and new statistics, torch's and ours, of the same noisy network."""
    fields = {"stage_sizes": (1, 1), "width": 8, "features": 16}
    torch.manual_seed(0)
    theirs = Network(request.param, CLASSES, hidden=12, **fields).double()
    with torch.no_grad():
        for tensor in (*theirs.parameters(), *theirs.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(CLIPS, FRAMES, 32, 40, 3)).astype(np.float32)
    audio = rng.normal(size=(CLIPS, SEGMENTS, 33, 26)).astype(np.float32)
    labels = np.arange(CLIPS) % CLASSES
    inputs = {"frames": frames, "audio": audio, "audio_segments": LENGTHS}
    arguments = (
        torch.tensor(frames).double().permute(0, 1, 4, 2, 3),
        torch.tensor(audio).double()[:, :, None],
        LENGTHS.tolist(),
    )
    if request.param == "late":
        trained_before(theirs, arguments)

    ours = Mrpn(CLASSES, request.param, scoring_hidden=12, **fields)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), inputs)
    variables = {name: in_our_layout(theirs, tree) for name, tree in shapes.items()}

    names = ("logits", "logits_video", "logits_audio")

    def of_torch(outputs):
        return {
            name: scores.detach().numpy()
            for name, scores in zip(names, outputs, strict=True)
            if scores is not None
        }

    theirs.eval()
    expected = {"eval": of_torch(theirs(*arguments))}
    theirs.train()
    outputs = theirs(*arguments)
    loss = theirs.loss(outputs, torch.tensor(labels))
    loss.backward()
    expected |= {
        "train": of_torch(outputs),
        "loss": {"loss": loss.detach().numpy()},
        "gradients": in_our_layout(theirs, shapes["params"], gradient=True),
        "statistics": in_our_layout(theirs, shapes["batch_stats"]),
    }

    @jax.jit
    def computed(variables):
        def scores_of(logits, taps):
            return {"logits": logits} | {k: v for k, v in taps.items() if k.startswith("logits")}

        def loss(params):
            (logits, taps), updated = ours.apply(
                {**variables, "params": params}, inputs, train=True, mutable=["batch_stats"]
            )
            scores = scores_of(logits, taps)
            value = -sum(
                jax.nn.log_softmax(scores[name])[jnp.arange(CLIPS), labels].mean()
                for name in ("logits", *ours.auxiliary_logits)
            )
            return value, (scores, updated["batch_stats"])

        (value, (scores, stats)), grads = jax.value_and_grad(loss, has_aux=True)(
            variables["params"]
        )
        return {
            "eval": scores_of(*ours.apply(variables, inputs)),
            "train": scores,
            "loss": {"loss": value},
            "gradients": grads,
            "statistics": stats,
        }

    with jax.default_matmul_precision("highest"):
        found = computed(variables)
    return found, expected


@pytest.mark.parametrize("what", ["eval", "train", "loss", "statistics", "gradients"])
def test_networks_agree(both, what):
    found, expected = both
    errors = relative_errors(found[what], expected[what])
    assert max(errors.values()) < 1e-5, sorted(errors.items(), key=lambda e: -e[1])[:5]


def test_at_full_size_torch_has_the_number_of_parameters_that_the_thesis_prints():
    with torch.device("meta"):
        theirs = Network("n0", 8, width=64, stage_sizes=(2, 2, 2, 2), features=512, hidden=256)
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert count == 26_813_704
    # torch has a second, redundant bias vector in each of two LSTMs.
    ours = Mrpn(8, "n0")
    shapes = jax.eval_shape(ours.init, jax.random.key(0), ours.input_shapes(1))
    assert parameter_count(shapes) == count - 2 * 4 * 512
