"""A modality's branch: padding that never leaks, clips without sound, maps and probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.resnet.branch import Branch, branch_input

FIELDS = {"stage_sizes": (1,), "width": 8, "stem": "conv3", "features": 8}
LENGTHS = np.array([3, 1, 2, 0], np.int32)
PADDING = np.arange(3)[None] >= LENGTHS[:, None]


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def applied(branch, variables, x, lengths=None, train=False):
    """Return ((features, maps), updated statistics)."""
    return branch.apply(variables, x, lengths, train, mutable=["batch_stats"])


@pytest.fixture(scope="module")
def segments():
    return np.random.default_rng(0).normal(size=(4, 3, 16, 12, 1)).astype(np.float32)


@pytest.fixture(scope="module", params=["lstm", "transformer"])
def audio(request, segments, random_variables):
    branch = Branch(aggregator=request.param, **FIELDS)
    return branch, random_variables(branch, segments)


@pytest.mark.parametrize("train", [False, True])
def test_what_pads_the_segments_changes_neither_features_nor_statistics(audio, segments, train):
    mask = PADDING[..., None, None, None]
    (features, _), stats = applied(*audio, np.where(mask, 0, segments), LENGTHS, train=train)
    (other, _), other_stats = applied(
        *audio, np.where(mask, np.float32(9), segments), LENGTHS, train=train
    )
    np.testing.assert_array_equal(features, other)
    jax.tree.map(np.testing.assert_array_equal, stats, other_stats)


@pytest.mark.parametrize("train", [False, True])
def test_how_many_segments_pad_does_not_matter(audio, segments, train):
    (features, _), stats = applied(*audio, segments, LENGTHS, train=train)
    longer = np.pad(segments, ((0, 0), (0, 4), (0, 0), (0, 0), (0, 0)))
    (other, _), other_stats = applied(*audio, longer, LENGTHS, train=train)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)
    close(features, other)
    jax.tree.map(close, stats, other_stats)


def test_a_clip_without_sound_is_the_mean_and_in_no_statistic(audio, segments):
    (features, _), stats = applied(*audio, segments, LENGTHS, train=True)
    np.testing.assert_array_equal(features[3], 0)
    (others, _), other_stats = applied(*audio, segments[:3], LENGTHS[:3], train=True)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)
    close(features[:3], others)
    jax.tree.map(close, stats, other_stats)
    # The features of a training batch are normalised over its clips.
    np.testing.assert_allclose(np.asarray(features[:3]).mean(0), 0, atol=1e-5)


def test_features_see_every_valid_segment_and_its_order(audio, segments):
    (features, _), _ = applied(*audio, segments, LENGTHS)
    swapped = segments.copy()
    swapped[0] = segments[0, [1, 0, 2]]
    swapped[2, 1] += 1
    (other, _), _ = applied(*audio, swapped, LENGTHS)
    change = np.abs(np.asarray(features) - other).max(axis=1)
    assert change[0] > 1e-4
    assert change[2] > 1e-4
    assert change[1] == change[3] == 0


def test_maps_lie_on_a_grid_and_a_probe_adds_to_them(audio, segments):
    branch, variables = audio
    (features, maps), _ = applied(branch, variables, segments, LENGTHS)
    assert maps.shape == (4, 3, 8, 6, 8)

    @jax.jit
    def gradient(probe):
        total = lambda probe: branch.apply(  # noqa: E731
            variables, segments, LENGTHS, False, probe
        )[0].sum()
        return jax.grad(total)(probe), branch.apply(variables, segments, LENGTHS, False, probe)

    grad, ((probed, probed_maps)) = gradient(jnp.ones(maps.shape))
    np.testing.assert_allclose(probed_maps, maps + 1, rtol=1e-5, atol=1e-5)
    assert np.abs(probed - features)[:3].max() > 1e-4
    grad = np.asarray(grad)
    np.testing.assert_array_equal(grad[PADDING], 0)
    assert (np.abs(grad[~PADDING]).max(axis=(1, 2, 3)) > 0).all()
    with pytest.raises(ValueError, match=r"the probe has shape \(3, 4, .* begin with \(4, 3\)"):
        branch.apply(variables, segments, LENGTHS, False, jnp.ones((3, 4, 8, 6, 8)))


def test_a_3d_cnn_sees_time_itself(random_variables):
    branch = Branch(cnn="3d", **FIELDS)
    clips = np.random.default_rng(2).normal(size=(2, 6, 16, 16, 3)).astype(np.float32)
    variables = random_variables(branch, clips)
    assert set(variables["params"]) == {"cnn"}
    (features, maps), _ = applied(branch, variables, clips)
    assert features.shape == (2, 8)
    assert maps.shape == (2, 6, 8, 8, 8)
    (other, _), _ = applied(branch, variables, clips[:, [1, 0, 2, 3, 4, 5]])
    assert np.abs(np.asarray(other) - features).max() > 1e-5


def test_frames_need_no_lengths_and_segments_do(segments):
    frames = jnp.zeros((2, 3, 8, 8, 3))
    x, lengths = branch_input({"frames": frames}, "video")
    assert x is frames
    assert lengths is None
    x, lengths = branch_input({"audio": segments[..., 0], "audio_segments": LENGTHS}, "audio")
    assert x.shape == (4, 3, 16, 12, 1)
    assert lengths is LENGTHS


@pytest.mark.parametrize(
    ("inputs", "modality", "message"),
    [
        ({}, "video", r"video branch needs inputs \['frames'\], found \[\]"),
        ({"audio": np.zeros((1, 2, 8, 8))}, "audio", r"needs inputs \['audio_segments'\]"),
        ({"frames": np.zeros((1, 8, 8, 3))}, "video", r"expected \[B, T, H, W, 3\]"),
        ({"frames": np.zeros((1, 2, 8, 8, 3), np.uint8)}, "video", "expected normalised floats"),
        (
            {"audio": np.zeros((1, 64)), "audio_segments": np.ones(1)},
            "audio",
            r"shape \(1, 64\), expected \[B, N, F, W\]",
        ),
    ],
)
def test_inputs_that_are_no_images_are_refused(inputs, modality, message):
    with pytest.raises(ValueError, match=message):
        branch_input(inputs, modality)
