"""Run folders of small untrained models, and clips of the rendered corpus."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.config import base_config
from aver_jax.models import init_variables
from aver_jax.runs.run_folder import model_of, write_run

CLASSES = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]


def written_run(folder, modalities, **model):
    """A run folder of an untrained model: prediction must work, not be right."""
    config = base_config()
    config.data.update(
        {"num_frames": 2, "image_size": 16, "protocol": "synthetic_fifths", "max_seconds": 2.0,
         "modalities": modalities}
    )  # fmt: skip
    config.model.update(model)
    module = model_of(config, len(CLASSES))
    metadata = {
        "classes": CLASSES,
        "dataset": {},
        "protocol": "synthetic_fifths",
        "modalities": list(modalities),
        "preparation": {"detector": "haar", "margin": 1.3, "size": 64},
    }
    write_run(folder, config, metadata, drawn_variables(module))
    return folder


def drawn_variables(module):
    """Some variables of a model, without the seconds that compiling its own draws takes."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_variables(module, jax.random.key(0)))

    def drawn(path, leaf):
        if path[0].key == "batch_stats":
            return jnp.float32(rng.uniform(0.5, 1.5, leaf.shape))
        return jnp.float32(rng.normal(0, 0.3, leaf.shape))

    return jax.tree_util.tree_map_with_path(drawn, shapes)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A TimeSformer's."""
    return written_run(
        tmp_path_factory.mktemp("predict") / "run", ("frames",), name="timesformer", width=16,
        depth=1, num_heads=2, patch_size=8, image_size=16, num_frames=2,
    )  # fmt: skip


SMALL = {"stage_sizes": (1,), "width": 8, "stem": "conv3", "aggregator": "mean", "features": 8,
         "scoring_hidden": 8}  # fmt: skip


@pytest.fixture(scope="session")
def heard_runs(tmp_path_factory):
    """Networks that hear: "n0" and "n2" of face and voice, "voice" of the voice alone."""
    folder, both = tmp_path_factory.mktemp("heard"), ("frames", "audio")
    voice = {"name": "resnet_lstm", "modality": "audio"}
    return {
        "n0": written_run(folder / "n0", both, name="mrpn", network="n0", **SMALL),
        "n2": written_run(folder / "n2", both, name="mrpn", network="n2", **SMALL),
        "voice": written_run(folder / "voice", ("audio",), **voice, **SMALL),
    }


@pytest.fixture(scope="session")
def clips(synthetic_media):
    return sorted(synthetic_media.glob("VideoMP4/*.mp4"))[:2]
