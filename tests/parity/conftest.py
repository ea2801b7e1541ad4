"""A small TimeSformer in torch and in ours, of the same noisy parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aver_jax.models.timesformer.timesformer import TimeSformer
from aver_jax.models.weights.timesformer import convert
from tools.make_reference import noisy_model


@pytest.fixture
def both_timesformers() -> Callable[[str], tuple[Any, TimeSformer, dict, np.ndarray]]:
    """Maps a type of attention to torch's model, ours, our variables, and frames of two clips."""

    def made(attention: str) -> tuple[Any, TimeSformer, dict, np.ndarray]:
        theirs = noisy_model(
            attention,
            width=24,
            heads=3,
            hidden=48,
            depth=3,
            image_size=12,
            patch_size=4,
            num_frames=4,
            num_classes=6,
        )
        state = {name: value.numpy() for name, value in theirs.state_dict().items()}
        converted = convert(state, num_heads=3, num_frames=4)
        frames = np.random.default_rng(0).normal(size=(2, 4, 12, 12, 3)).astype(np.float32)
        return theirs, TimeSformer(**converted.fields), {"params": converted.params}, frames

    return made
