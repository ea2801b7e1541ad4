"""Tiny models whose every parameter is random."""

import jax
import numpy as np
import pytest

from aver_jax.models import init_variables
from aver_jax.models.timesformer.timesformer import TimeSformer


@pytest.fixture(scope="session")
def random_variables():
    """Function of a model: its variables drawn by numpy, which compiles nothing.

    A part of a model is given arguments as well, since it does not know the shapes of its inputs.
    """

    def drawn(model, *inputs):
        key = jax.random.key(0)
        shapes = jax.eval_shape(
            lambda: model.init(key, *inputs) if inputs else init_variables(model, key)
        )
        rng = np.random.default_rng(0)

        def leaf(path, shape):
            centre = float(path[-1].key in ("scale", "var"))
            return (centre + 0.2 * rng.normal(size=shape.shape)).astype(np.float32)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return drawn


@pytest.fixture(scope="session")
def tiny(random_variables):
    """The tiny divided model and its variables."""
    model = TimeSformer(
        num_classes=5,
        image_size=16,
        num_frames=3,
        patch_size=8,
        width=24,
        depth=2,
        num_heads=3,
        drop_path=0.5,
    )
    return model, random_variables(model)


@pytest.fixture(scope="session")
def clips():
    """Frames of two clips for the tiny model."""
    return np.random.default_rng(7).normal(size=(2, 3, 16, 16, 3)).astype(np.float32)
