"""Augmentation of sound: what each change does, its ranges, and what it depends on."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from ml_collections import ConfigDict

from aver_jax.frontend import evaluation_inputs, sound, training_inputs
from aver_jax.frontend.presets import SMALL_CORPUS
from aver_jax.frontend.sound import OFF, Factors, checked_amounts
from aver_jax.frontend.spectrogram import Settings

KEY = jax.random.key(0)
SMALL = {"n_fft": 64, "window": 64, "hop": 32, "segment": 16}
ALL = {
    "gain": 6.0,
    "noise": 1.0,
    "snr": (15.0, 40.0),
    "time_masks": 2,
    "time_width": 0.1,
    "frequency_masks": 1,
    "frequency_width": 0.1,
}
NO_MASKS = np.zeros((0, 2), np.int32)


def make_config(seed=3, **frontend):
    frontend = {"normalization": "half", "spectrogram": SMALL} | frontend
    return ConfigDict({"seed": seed, "frontend": frontend})


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "audio": rng.integers(-8000, 8000, (4, 3000), dtype=np.int16),
        "audio_length": np.array([3000, 900, 1700, 3000], np.int32),
        "seed": np.array([7, 1, 4_000_000_000, 3], np.uint32),
    }


@pytest.fixture(scope="module")
def inputs_of_batch():
    """(batch, seed) -> segments, with everything on, compiled once; the seed is traced."""
    compiled = jax.jit(lambda b, s: training_inputs(make_config(s, sound=ALL), b)["audio"])
    return lambda batch, seed=3: np.asarray(compiled(batch, seed))


@functools.cache
def compiled_factors(time_masks, frequency_masks):
    counts = {"time_masks": time_masks, "frequency_masks": frequency_masks}
    draw = jax.vmap(
        lambda key, amounts, frames: sound.random_factors(
            key, amounts | counts, Settings(), frames
        ),
        in_axes=(0, None, None),
    )
    return jax.jit(draw)


def drawn(amounts, count=300, frames=751):
    amounts = checked_amounts({"time_masks": 2, "frequency_masks": 2} | amounts)
    compiled = compiled_factors(amounts["time_masks"], amounts["frequency_masks"])
    factors = compiled(jax.random.split(KEY, 300), amounts, frames)
    return jax.tree.map(lambda x: np.asarray(x)[:count], factors._replace(noise_key=None))


def test_an_example_is_the_same_in_any_batch_and_at_any_place(batch, inputs_of_batch):
    whole = inputs_of_batch(batch)
    order = [2, 0, 3, 3]
    other = inputs_of_batch({name: value[order] for name, value in batch.items()})
    np.testing.assert_allclose(other, whole[order], atol=1e-5)


def test_an_example_is_the_same_however_the_batch_is_spread(batch, inputs_of_batch):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.jit(
        jax.shard_map(
            lambda b: training_inputs(make_config(sound=ALL), b)["audio"],
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
    for other in (other_examples, inputs_of_batch(batch, np.uint32(4))):
        assert (np.abs(other - whole).max((1, 2, 3)) > 0.01).all()
    np.testing.assert_array_equal(inputs_of_batch(batch, np.uint32(3)), whole)


def test_without_augmentation_training_hears_what_evaluation_hears(batch):
    config, noisy = make_config(sound=OFF), make_config(sound=ALL)
    trained = jax.jit(lambda b: training_inputs(config, b))(batch)
    evaluated = jax.jit(lambda b: evaluation_inputs(noisy, b))(batch)
    for name in ("audio", "audio_segments"):
        np.testing.assert_array_equal(trained[name], evaluated[name])


def test_augmentation_stays_within_the_clip(batch, inputs_of_batch):
    plain = evaluation_inputs(make_config(), batch)
    whole = inputs_of_batch(batch)
    # 900 samples are 29 frames: 3 segments, a new one every 8, the last 13 of 16 frames long.
    assert plain["audio_segments"][1] == 3
    assert not whole[1, 2, :, 13:].any()
    assert not whole[1, 4:].any()


def test_frames_are_what_they_are_without_sound(batch):
    frames = np.random.default_rng(1).integers(0, 256, (4, 2, 16, 16, 3), dtype=np.uint8)
    config = make_config(augment=SMALL_CORPUS, sound=ALL)
    compiled = jax.jit(lambda b: training_inputs(config, b)["frames"])
    np.testing.assert_allclose(
        compiled(batch | {"frames": frames}),
        compiled({"frames": frames, "seed": batch["seed"]}),
        atol=1e-5,
    )


def test_gain_is_uniform_in_decibels():
    decibels = 20 * np.log10(drawn({"gain": 6}).gain)
    assert -6 - 1e-4 <= decibels.min() < -5.9
    assert 5.9 < decibels.max() <= 6 + 1e-4
    assert abs(decibels.mean()) < 0.5
    factors = Factors(np.float32(2), np.float32(0), KEY, NO_MASKS, NO_MASKS)
    samples = np.array([0.5, -0.25, 0], np.float32)
    louder = sound.changed_samples(samples, np.int32(2), factors, checked_amounts({"gain": 6}))
    np.testing.assert_allclose(louder, [1, -0.5, 0])


def test_noise_has_its_distance_from_the_clips_own_power():
    noise = drawn({"noise": 0.5, "snr": (10, 30)}).noise
    assert 0.42 < (noise == 0).mean() < 0.58
    snr = -20 * np.log10(noise[noise > 0])
    assert 10 - 1e-4 <= snr.min() < 10.5
    assert 29.5 < snr.max() <= 30 + 1e-4

    samples = np.zeros(20_000, np.float32)
    samples[:15_000] = 0.3 * np.sin(np.arange(15_000))
    amounts = checked_amounts({"noise": 1, "snr": (20, 20)})
    factors = Factors(np.float32(1), np.float32(0.1), KEY, NO_MASKS, NO_MASKS)
    noisy = np.asarray(sound.changed_samples(samples, np.int32(15_000), factors, amounts))
    assert not noisy[15_000:].any()
    added = (noisy - samples)[:15_000]
    assert 10 * np.log10((samples[:15_000] ** 2).mean() / (added**2).mean()) == pytest.approx(
        20, abs=0.2
    )
    silence = np.zeros(100, np.float32)
    assert not np.any(sound.changed_samples(silence, np.int32(0), factors, amounts))


def test_masks_are_as_wide_and_as_many_as_stated():
    amounts = {"time_masks": 2, "time_width": 0.2, "frequency_masks": 2, "frequency_width": 0.1}
    factors = drawn(amounts)
    assert factors.times.shape == (300, 2, 2)
    assert factors.bands.shape == (300, 2, 2)
    for stretches, size, widest in ((factors.times, 751, 50), (factors.bands, 257, 25)):
        width = stretches[..., 1] - stretches[..., 0]
        assert width.min() == 0
        assert width.max() == widest
        assert stretches[..., 0].min() < 0.01 * size
        assert 0.99 * size < stretches[..., 1].max() <= size
        # Every width is equally likely.
        assert abs(width.mean() - widest / 2) < 0.05 * widest


def test_a_short_clip_is_not_masked_from_end_to_end():
    times = drawn({"time_width": 0.2}, frames=40).times
    assert (times[..., 1] - times[..., 0]).max() == 8
    assert times.max() == 40


def test_masked_stretches_are_zero_and_nothing_else_is():
    values = np.ones((12, 9), np.float32)
    times = np.array([[2, 4], [7, 7], [3, 5]], np.int32)
    factors = Factors(np.float32(1), np.float32(0), KEY, times, np.array([[8, 9]], np.int32))
    expected = values.copy()
    expected[2:5] = 0
    expected[:, 8] = 0
    np.testing.assert_array_equal(sound.masked(values, factors), expected)


def test_turning_one_change_off_leaves_the_others_as_they_were():
    amounts = ALL | {"frequency_masks": 2}
    some, fewer = drawn(amounts, 5), drawn(amounts | {"gain": 0.0, "time_masks": 0}, 5)
    np.testing.assert_array_equal(some.noise, fewer.noise)
    np.testing.assert_array_equal(some.bands, fewer.bands)


def test_unknown_and_impossible_amounts_are_named(batch):
    with pytest.raises(ValueError, match=r"frontend.sound has unknown fields pitch; known: gain"):
        checked_amounts({"pitch": 1})
    with pytest.raises(ValueError, match=r"frontend.sound.snr is \(30, 10\); expected \(low, high"):
        checked_amounts({"snr": (30, 10)})
    with pytest.raises(ValueError, match=r"sound.gain is -1; expected 0 \(off\) to 60$"):
        checked_amounts({"gain": -1})
    with pytest.raises(ValueError, match=r"time_masks is 1.5; expected .* a whole number"):
        checked_amounts({"time_masks": 1.5})
    with pytest.raises(ValueError, match=r"noise is '1'; expected 0"):
        checked_amounts({"noise": "1"})
    with pytest.raises(ValueError, match="unknown fields pitch"):
        training_inputs(make_config(sound={"pitch": 1}), batch)
    assert checked_amounts({}) == OFF
    assert checked_amounts(ALL) == ALL
