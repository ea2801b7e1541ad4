"""Inputs of a batch: what they depend on, and what they do not."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from ml_collections import ConfigDict

from aver_jax.frontend import evaluation_inputs, example_keys, training_inputs
from aver_jax.frontend.presets import THESIS


def make_config(seed=3, **frontend):
    return ConfigDict({"seed": seed, "frontend": {"normalization": "half"} | frontend})


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 2, 16, 16, 3), dtype=np.uint8)
    return {"frames": frames, "seed": np.array([7, 1, 4_000_000_000, 3], np.uint32)}


@pytest.fixture(scope="module")
def inputs_of_batch():
    """(batch, seed) -> frames, with everything on, compiled once."""
    compiled = jax.jit(lambda b, s: training_inputs(make_config(s, augment=THESIS), b)["frames"])
    return lambda batch, seed=3: np.asarray(compiled(batch, seed))


def test_an_example_is_the_same_in_any_batch_and_at_any_place(batch, inputs_of_batch):
    whole = inputs_of_batch(batch)
    order = [2, 0, 3, 3]
    other = inputs_of_batch({name: value[order] for name, value in batch.items()})
    np.testing.assert_allclose(other, whole[order], atol=1e-5)


def test_an_example_is_the_same_however_the_batch_is_spread(batch, inputs_of_batch):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    config = make_config(augment=THESIS)
    mapped = jax.jit(
        jax.shard_map(
            lambda b: training_inputs(config, b)["frames"],
            mesh=mesh,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec("data"),
            check_vma=False,
        )
    )
    np.testing.assert_allclose(mapped(batch), inputs_of_batch(batch), atol=1e-5)


def test_both_seeds_change_the_draw(batch, inputs_of_batch):
    whole = inputs_of_batch(batch)
    other_examples = inputs_of_batch(batch | {"seed": batch["seed"] + np.uint32(1)})
    for other in (other_examples, inputs_of_batch(batch, 4)):
        assert (np.abs(other - whole).max((1, 2, 3, 4)) > 0.1).all()


def test_example_keys_do_not_follow_the_users_default_generator():
    seeds = np.array([1, 2], np.uint32)
    keys = jax.random.key_data(example_keys(0, seeds))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.key_data(example_keys(0, seeds)), keys)


def test_without_augmentation_training_sees_what_evaluation_sees(batch):
    config = make_config(augment={})
    trained = jax.jit(lambda b: training_inputs(config, b))(batch)["frames"]
    evaluated = evaluation_inputs(config, {"frames": batch["frames"]})["frames"]
    np.testing.assert_allclose(trained, evaluated, atol=1e-6)
    np.testing.assert_allclose(evaluated, batch["frames"] / 127.5 - 1, atol=1e-6)


def test_evaluation_ignores_the_augmentation(batch):
    plain, noisy = make_config(), make_config(augment=THESIS)
    np.testing.assert_array_equal(
        evaluation_inputs(plain, batch)["frames"], evaluation_inputs(noisy, batch)["frames"]
    )


@pytest.mark.parametrize("inputs", [training_inputs, evaluation_inputs])
def test_unknown_fields_and_wrong_frames_are_one_clear_line(batch, inputs):
    with pytest.raises(ValueError, match="unknown fields mixup; known: augment, level"):
        inputs(make_config(mixup=1), batch)
    with pytest.raises(ValueError, match="normalization is 'none'; expected one of per_clip"):
        inputs(make_config(normalization="none"), batch)
    with pytest.raises(ValueError, match=r"float32 \[4, 2, 16, 16, 3\]; expected uint8"):
        inputs(make_config(), batch | {"frames": batch["frames"].astype(np.float32)})
    with pytest.raises(ValueError, match="unknown fields jitter"):
        training_inputs(make_config(augment={"jitter": 1}), batch)


@pytest.fixture(scope="module")
def sound():
    rng = np.random.default_rng(1)
    audio = rng.integers(-8000, 8000, (4, 3000), dtype=np.int16)
    return {"audio": audio, "audio_length": np.array([3000, 0, 1, 1700], np.int32)}


SMALL = {"n_fft": 64, "window": 64, "hop": 32, "segment": 16}


def test_inputs_are_those_of_the_batchs_modalities(batch, sound):
    config = make_config(spectrogram=SMALL)
    compiled = jax.jit(lambda b: evaluation_inputs(config, b))
    frames = {"frames": batch["frames"]}
    assert compiled(frames).keys() == {"frames"}
    heard = compiled(sound)
    assert {name: (x.shape, x.dtype.name) for name, x in heard.items()} == {
        "audio": ((4, 11, 33, 16), "float32"),
        "audio_segments": ((4,), "int32"),
    }
    # 94, 0, 1 and 54 frames, a new segment every 8.
    np.testing.assert_array_equal(heard["audio_segments"], [11, 0, 1, 6])
    both = compiled(frames | sound)
    np.testing.assert_array_equal(both["audio"], heard["audio"])
    with pytest.raises(ValueError, match="the batch has seed; expected frames or audio"):
        evaluation_inputs(config, {"seed": batch["seed"]})
