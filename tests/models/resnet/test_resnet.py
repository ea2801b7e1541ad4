"""ResNets: sizes, shapes, masks, probes, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models.resnet.conv_norm import convolved
from aver_jax.models.resnet.resnet import ResNet

SMALL = {"stage_sizes": (1, 1), "width": 4}


def variable_shapes(model, shape):
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def parameters(model, shape):
    """The number of parameters of a model of inputs [1, ...]."""
    return sum(leaf.size for leaf in jax.tree.leaves(variable_shapes(model, shape)["params"]))


def variables_of(model, x):
    """Random variables, drawn by numpy, which compiles nothing."""
    rng = np.random.default_rng(0)

    def leaf(path, shape):
        centre = float(path[-1].key in ("scale", "var"))
        return (centre + 0.2 * rng.normal(size=shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, variable_shapes(model, x.shape))


def evaluated(model, x, **kwargs):
    return jax.jit(model.apply)(variables_of(model, x), x, **kwargs)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(4, 21, 18, 3)).astype(np.float32)


@pytest.mark.parametrize(("channels", "count"), [(3, 11_176_512), (1, 11_170_240)])
def test_resnet18_has_the_published_number_of_parameters(channels, count):
    assert parameters(ResNet(), (1, 64, 64, channels)) == count


def test_3d_resnet18_gives_the_number_of_parameters_of_the_thesis():
    count = parameters(ResNet(dims=3), (1, 8, 32, 32, 3))
    assert count == 33_203_904
    # N0 of the thesis, video by the 3-D net and sound by ResNet-18, no LSTMs, 8 classes.
    scoring = (1024 * 256 + 256) + (256 * 8 + 8)
    assert count + 11_170_240 + scoring == 44_638_600


@pytest.mark.parametrize("dims", [2, 3])
def test_kernels_start_normal_by_what_they_reach(dims):
    # He et al. (2015), as torchvision: deviation sqrt(2 / fan out).
    init = jax.jit(ResNet(stage_sizes=(1, 1), width=16, stem="conv3", dims=dims).init)
    params = init(jax.random.key(0), jnp.zeros((1,) + (4,) * dims + (16,)))["params"]
    kernels = [
        (jax.tree_util.keystr(path), np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    ]
    assert len(kernels) == 6
    for name, kernel in kernels:
        deviation = np.sqrt(2 / (kernel.size / kernel.shape[-2]))
        # Four deviations of the estimate.
        np.testing.assert_allclose(
            kernel.std(), deviation, rtol=4 / np.sqrt(2 * kernel.size), err_msg=name
        )
        assert abs(kernel.mean()) < 4 * deviation / np.sqrt(kernel.size), name
        assert np.abs(kernel).max() > 2.3 * deviation, name


@pytest.mark.parametrize("stem", ["conv7", "conv3"])
def test_features_are_the_means_of_the_maps(images, stem):
    model = ResNet(stem=stem, **SMALL)
    features, maps = evaluated(model, images)
    height, width = (3, 3) if stem == "conv7" else (6, 5)
    assert maps.shape == (4, height, width, 8)
    np.testing.assert_allclose(features, maps.mean((1, 2)), rtol=1e-6)


def test_the_3d_net_halves_time_but_in_the_stem():
    model = ResNet(dims=3, **SMALL)
    clip = jax.ShapeDtypeStruct((2, 8, 21, 18, 3), jnp.float32)
    (features, maps), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    assert maps.shape == (2, 2, 3, 3, 8)
    assert features.shape == (2, 8)


def test_masked_images_leave_features_and_statistics_alone(images):
    model = ResNet(**SMALL)
    variables = variables_of(model, images)
    apply = jax.jit(functools.partial(model.apply, train=True, mutable="batch_stats"))
    mask = np.array([True, False, True, True])
    spoilt = np.where(mask[:, None, None, None], images, 1e6).astype(np.float32)
    (features, _), updated = apply(variables, spoilt, mask=mask)
    (alone, _), updated_alone = apply(variables, images[mask])
    np.testing.assert_allclose(features[mask], alone, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), updated, updated_alone
    )


def test_a_probe_is_added_to_the_maps(images):
    model = ResNet(**SMALL)
    features, maps = evaluated(model, images)
    probe = np.random.default_rng(4).normal(size=maps.shape).astype(np.float32)
    moved, _ = evaluated(model, images, probe=probe)
    np.testing.assert_allclose(moved, features + probe.mean((1, 2)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="the probe has shape"):
        evaluated(model, images, probe=probe[:1])


def test_low_precision_is_near_full_precision(images):
    model = ResNet(**SMALL)
    features, maps = evaluated(model, images)
    low, low_maps = evaluated(model.clone(dtype=jnp.bfloat16), images)
    assert (low.dtype, low_maps.dtype, maps.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(low, features, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"stem": "conv5"}, (1, 9, 9, 3), "stem is 'conv5'"),
        ({"dims": 3}, (1, 9, 9, 3), r"expected \[N, T, H, W, C\]"),
        ({}, (1, 8, 9, 9, 3), r"expected \[N, H, W, C\]"),
    ],
)
def test_what_does_not_fit_is_refused(fields, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(ResNet(**fields).init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("sizes", "window", "stride"),
    [((2, 2), 3, 1), ((4, 4), 3, 2), ((1, 3), 7, 2), ((3, 4, 4), 3, 2), ((5, 2), 3, 1)],
)
def test_a_kernel_wider_than_its_result_gives_the_same_as_any(sizes, window, stride):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, *sizes, 4), np.float32)
    kernel = rng.standard_normal((window,) * len(sizes) + (4, 6), np.float32)
    letters = "DHW"[-len(sizes) :]
    call = ((stride,) * len(sizes), [(window // 2, window // 2)] * len(sizes))
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    found = convolved(x, kernel, *call)
    expected = jax.lax.conv_general_dilated(x, kernel, *call, dimension_numbers=numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert found.shape == expected.shape
