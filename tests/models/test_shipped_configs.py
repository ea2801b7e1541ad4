"""Models of the shipped experiments: all are possible, all of their fields can be reached."""

import jax
import numpy as np
import pytest

from aver_jax.config import load_config, override
from aver_jax.frontend import augment, sound, spectrogram
from aver_jax.input.clips import SAMPLE_RATE
from aver_jax.models import init_variables
from aver_jax.models.fusion.fusion import NETWORKS
from aver_jax.models.resnet.sequence import AGGREGATORS
from aver_jax.runs.run_folder import model_of
from aver_jax.training.preflight import check_modalities


def built(argument):
    """Return the config and the model of an argument of mrpn.py, checked against each other."""
    config = load_config(f"mrpn.py:{argument}")
    model = model_of(config, num_classes=6)
    check_modalities(config, model)
    return config, model


@pytest.mark.parametrize("size", ["study", "small", "thesis"])
@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("network", ["video", "audio", *NETWORKS])
def test_every_network_has_every_size_and_aggregator(network, size, aggregator):
    _, model = built(f"network={network},size={size},aggregator={aggregator}")
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    assert set(shapes) == {"params", "batch_stats"}


@pytest.mark.parametrize("size", ["study", "small", "thesis"])
@pytest.mark.parametrize("network", ["video", "audio", "late", "n2"])
def test_a_3d_cnn_is_of_the_face_alone(network, size):
    _, model = built(f"network={network},size={size},cnn=3d")
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    for branch in {"video", "audio"} & set(shapes["params"]):
        kernel = shapes["params"][branch]["cnn"]["conv1"]["kernel"]
        assert kernel.ndim == (5 if branch == "video" else 4)
        assert ("aggregator" in shapes["params"][branch]) == (branch == "audio")


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("frontend.sound.gain=6.0", "frontend.sound.gain", 6.0),
        ("frontend.sound.snr=(15.0, 30.0)", "frontend.sound.snr", (15.0, 30.0)),
        ("frontend.sound.time_masks=2", "frontend.sound.time_masks", 2),
        ("frontend.augment.shear=3.0", "frontend.augment.shear", 3.0),
        ("model.cnn=3d", "model.cnn", "3d"),
        ("model.dtype=bfloat16", "model.dtype", "bfloat16"),
    ],
)
@pytest.mark.parametrize("spec", ["mrpn.py", "resnet_lstm.py:size=thesis"])
def test_fields_of_parts_are_set_from_the_command_line(spec, word, path, value):
    config = override(load_config(spec), [f"--config.{word}"])
    for name in path.split("."):
        config = config[name]
    assert config == value


@pytest.mark.parametrize(
    "spec", ["mrpn.py", "mrpn.py:size=thesis", "resnet_lstm.py:modality=audio"]
)
def test_sound_is_as_it_was_recorded_unless_asked_otherwise(spec):
    config = load_config(spec)
    assert sound.checked_amounts(config.frontend.sound) == sound.OFF
    assert set(config.frontend.augment) == set(augment.OFF)


@pytest.mark.parametrize("size", ["demo", "S", "B"])
def test_how_layers_are_compiled_can_be_set(size):
    config = load_config(f"timesformer.py:size={size}")
    config = override(config, ["--config.model.unroll=12", "--config.model.remat=dots"])
    assert (config.model.unroll, config.model.remat) == (12, "dots")


@pytest.mark.parametrize("size", ["demo", "B"])
def test_frames_of_a_timesformer_can_be_sheared(size):
    config = load_config(f"timesformer.py:size={size}")
    assert set(config.frontend.augment) == set(augment.OFF)
    assert override(config, ["--config.frontend.augment.shear=4.0"]).frontend.augment.shear == 4


@pytest.mark.parametrize(("dataset", "segments"), [("crema_d", 9), ("ravdess", 10), ("folder", 11)])
def test_segments_at_the_thesis_sizes_are_those_that_the_cost_states(dataset, segments):
    data = load_config(f"mrpn.py:size=thesis,dataset={dataset}")
    samples = np.int32(data.data.max_seconds * SAMPLE_RATE)
    assert spectrogram.num_segments(data.frontend.spectrogram, samples) == segments
