"""Grad-CAM of an MRPN against torch autograd, its maps and their gradient caught by hooks."""

import jax
import numpy as np
import pytest
import torch

from aver_jax.models.fusion.mrpn import Mrpn
from aver_jax.relevance import explain
from tests.parity.test_mrpn import Network, in_our_layout

pytestmark = pytest.mark.parity

CLIPS, FRAMES, SEGMENTS, CLASSES = 3, 4, 4, 5
LENGTHS = np.array([4, 1, 3], np.int32)
FIELDS = {"stage_sizes": (1, 1), "width": 8, "features": 16}


@pytest.fixture(scope="module", params=["n0", "n2"])
def networks(request):
    """(torch's network in float64, ours, its variables, inputs)."""
    torch.manual_seed(0)
    theirs = Network(request.param, CLASSES, hidden=12, **FIELDS).double().eval()
    with torch.no_grad():
        # Of both signs: gates that saturate would leave no digits of their slope in float32.
        for tensor in theirs.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
        for tensor in theirs.buffers():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    rng = np.random.default_rng(0)
    inputs = {
        "frames": rng.normal(size=(CLIPS, FRAMES, 32, 40, 3)).astype(np.float32),
        "audio": rng.normal(size=(CLIPS, SEGMENTS, 65, 50)).astype(np.float32),
        "audio_segments": LENGTHS,
    }
    ours = Mrpn(CLASSES, request.param, scoring_hidden=12, **FIELDS)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), inputs)
    variables = {name: in_our_layout(theirs, tree) for name, tree in shapes.items()}
    return theirs, ours, variables, inputs


def torchs_maps(theirs, inputs, target):
    """Modality -> [(maps [T,h,w,D], gradient alike)] for each clip; and the logits."""
    caught = {}

    def keep(branch):
        def hook(module, arguments, output):
            output.retain_grad()
            caught[branch] = output

        return hook

    hooks = [
        getattr(theirs, branch).cnn.layer2_0.register_forward_hook(keep(branch))
        for branch in ("video", "audio")
    ]
    frames = torch.tensor(inputs["frames"]).double().permute(0, 1, 4, 2, 3)
    audio = torch.tensor(inputs["audio"]).double()[:, :, None]
    logits, *_ = theirs(frames, audio, LENGTHS.tolist())
    chosen = logits.argmax(1) if target is None else torch.tensor(target)
    logits[torch.arange(CLIPS), chosen].sum().backward()
    for hook in hooks:
        hook.remove()
    split = {
        name: [
            (maps.permute(0, 2, 3, 1).detach().numpy(), slope.permute(0, 2, 3, 1).numpy())
            for maps, slope in zip(
                torch.split(caught[branch], lengths),
                torch.split(caught[branch].grad, lengths),
                strict=True,
            )
        ]
        for name, branch, lengths in (
            ("frames", "video", [FRAMES] * CLIPS),
            ("audio", "audio", LENGTHS.tolist()),
        )
    }
    return split, logits.detach().numpy(), chosen.numpy()


@pytest.mark.parametrize("target", [None, [0, 3, 4]])
def test_maps_agree_with_torch(networks, target):
    theirs, ours, variables, inputs = networks
    expected, logits, chosen = torchs_maps(theirs, inputs, target)
    for modality, clips in expected.items():
        for path, over in (("space_time", (0, 1, 2)), ("spatial", (1, 2))):
            with jax.default_matmul_precision("highest"):
                found = explain(
                    ours, variables, inputs, "grad_cam", path, modality, target, normalize=False
                )
            np.testing.assert_array_equal(found.target, chosen)
            np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-4)
            terms = [maps * slope.mean(over, keepdims=True) for maps, slope in clips]
            cams = [np.maximum(term.sum(-1), 0) for term in terms]
            assert max(cam.max() for cam in cams) > 0
            # Channels of both signs cancel, so that the sum of their sizes is what float32 rounds.
            size = max(np.abs(term).sum(-1).max() for term in terms)
            for place, cam in enumerate(cams):
                ours_here = np.asarray(found.maps[place])
                np.testing.assert_allclose(ours_here[: len(cam)], cam, atol=1e-5 * size)
                assert not ours_here[len(cam) :].any()
