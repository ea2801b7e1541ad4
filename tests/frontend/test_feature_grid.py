"""Cells of a ResNet's maps lie where the network looks, by the gradient of each cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.frontend.feature_grid import cell_centres, cell_weights, enlarged
from aver_jax.models.resnet.resnet import ResNet


@pytest.mark.parametrize(
    ("stem", "size", "stride"), [("conv3", 50, 4), ("conv3", 33, 4), ("conv7", 75, 8)]
)
def test_centres_are_those_of_the_gradient(stem, size, stride):
    """Kernels of ones on an image of ones: nothing is cut off, the gradient is a plain hill."""
    model = ResNet(stage_sizes=(1, 1), width=2, stem=stem)
    image = jnp.ones((1, size, size, 1))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    # The mean of a norm is 0.
    means = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (path[-1].key not in ("mean", "bias")), variables
    )

    def summed(image):
        return model.apply(means, image)[1][0, :, :, 0]

    maps, pullback = jax.vjp(summed, image)
    count = len(maps)
    centres = cell_centres(count, size)
    np.testing.assert_array_equal(centres, stride * np.arange(count))
    middle = count // 2
    (gradient,) = pullback(jnp.zeros_like(maps).at[middle, middle].set(1))
    hill = np.asarray(gradient)[0, :, :, 0]
    found = [(hill.sum(axis) * np.arange(size)).sum() / hill.sum() for axis in (1, 0)]
    # Of equal values a max-pool takes the first, one before the middle of its three.
    earlier = 2.0 if stem == "conv7" else 0.0
    np.testing.assert_allclose(found, stride * middle - earlier, atol=1e-2)


def test_cells_of_no_power_of_two_share_the_axis_evenly():
    np.testing.assert_allclose(cell_centres(3, 30), [4.5, 14.5, 24.5])
    np.testing.assert_allclose(cell_centres(7, 7), np.arange(7))
    np.testing.assert_allclose(cell_centres(8, 250), 32 * np.arange(8))


def test_between_centres_it_is_linear_and_beyond_them_held():
    weights = cell_weights(8, 250)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(weights[[0, 16, 224, 249]] @ np.arange(8), [0, 0.5, 7, 7])
    maps = np.random.default_rng(0).uniform(size=(2, 3, 4))
    large = enlarged(maps, 24, 32)
    np.testing.assert_allclose(large[:, ::8, ::8], maps, atol=1e-6)
