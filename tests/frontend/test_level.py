"""The level of the sound: what it makes alike, and what it leaves alone."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax.config import base_config, load_config
from aver_jax.frontend import evaluation_inputs, training_inputs
from aver_jax.frontend.level import LARGEST_GAIN, TARGET, active_power, levelled

SMALL = {"n_fft": 64, "window": 64, "hop": 32, "segment": 16}


def make_config(**frontend):
    return ConfigDict({"seed": 3, "frontend": {"level": "rms", "spectrogram": SMALL} | frontend})


def speech(seconds=1.5, level=0.1, seed=0):
    """Syllables of noise over a faint floor, int16 samples at 16 kHz."""
    rng, time = np.random.default_rng(seed), np.arange(int(16_000 * seconds)) / 16_000
    envelope = np.maximum(np.sin(2 * np.pi * 3 * time), 0.003)
    return np.round(32_767 * level * envelope * rng.uniform(-1, 1, time.size)).astype(np.int16)


def batch_of(*clips):
    audio = np.zeros((len(clips), max(map(len, clips)) + 100), np.int16)
    for place, clip in enumerate(clips):
        audio[place, : len(clip)] = clip
    return {
        "audio": audio,
        "audio_length": np.array([len(c) for c in clips], np.int32),
        "seed": np.arange(len(clips), dtype=np.uint32),
    }


def scaled(clip, factor):
    return np.round(clip * factor).astype(np.int16)


def level_of(clip):
    """The level of the samples that sound, in dB of full scale."""
    power = active_power(np.float32(clip)[None] / 32_768, np.array([len(clip)], np.int32))
    return 10 * float(np.log10(power[0]))


@pytest.mark.parametrize("factor", [0.1, 0.3, 3.0])
def test_a_recording_and_the_same_at_another_level_give_the_same_spectrogram(factor):
    clip = speech()
    compiled = jax.jit(lambda b: evaluation_inputs(make_config(), b)["audio"])
    one, other = compiled(batch_of(clip, scaled(clip, factor)))
    # Rounding moves a sample of the quieter one by half a digit at most, a magnitude by the sum of
    # the window's 64 weights (32) times that and the gain, and log1p by no more than a magnitude.
    gain = 10 ** ((TARGET - level_of(scaled(clip, factor))) / 20)
    rounding = 32 * 0.5 / 32_768 * gain
    assert np.abs(one - other).max() <= rounding + 1e-4
    assert np.asarray(one).max() > 20 * rounding
    off = jax.jit(lambda b: evaluation_inputs(make_config(level="off"), b)["audio"])
    one, other = off(batch_of(clip, scaled(clip, factor)))
    assert np.abs(one - other).max() > 0.1


def test_speech_comes_to_the_target_whatever_silence_is_around_it():
    clip = speech()
    silence = np.zeros(16_000, np.int16)
    for whole in (clip, np.concatenate([silence, clip, silence])):
        batch = batch_of(whole)
        samples = np.float32(batch["audio"]) / 32_768
        out = levelled(samples, batch["audio_length"])
        power = active_power(out, batch["audio_length"])
        assert 10 * np.log10(power[0]) == pytest.approx(TARGET, abs=0.01)
    alone, among = (level_of(w) for w in (clip, np.concatenate([silence, clip, silence])))
    assert alone == pytest.approx(among, abs=0.1)


def test_silence_stays_silent_and_digital_noise_is_amplified_by_the_cap_alone():
    noise = np.random.default_rng(0).integers(-1, 2, 8000).astype(np.int16)
    batch = batch_of(np.zeros(8000, np.int16), noise, np.zeros(0, np.int16))
    samples = np.float32(batch["audio"]) / 32_768
    out = np.asarray(levelled(samples, batch["audio_length"]))
    np.testing.assert_array_equal(out[0], 0)
    np.testing.assert_array_equal(out[2], 0)
    np.testing.assert_allclose(out[1], samples[1] * 10 ** (LARGEST_GAIN / 20), rtol=1e-5)
    assert 20 * np.log10(out[1].std()) < -50
    assert np.isfinite(evaluation_inputs(make_config(), batch)["audio"]).all()


def test_the_level_is_that_of_the_clip_and_not_of_the_buffer_or_its_neighbours():
    loud, quiet = speech(level=0.5), speech(seconds=0.7, level=0.01, seed=1)
    both = evaluation_inputs(make_config(), batch_of(loud, quiet))["audio"][1]
    alone = evaluation_inputs(make_config(), batch_of(quiet))["audio"][0]
    np.testing.assert_allclose(both[: len(alone)], alone, atol=1e-4)


def test_a_random_gain_still_acts_after_it():
    config = make_config(sound={"gain": 12.0})
    clips = batch_of(*[speech()] * 4)
    heard = np.asarray(training_inputs(config, clips)["audio"])
    assert np.ptp(heard.mean((1, 2, 3))) > 0.05
    # Noise is relative to the clip: it too is the same at any level.
    config = make_config(sound={"noise": 1.0, "snr": (20.0, 20.0)})
    one, other = (
        training_inputs(config, batch_of(c))["audio"] for c in (speech(), scaled(speech(), 0.3))
    )
    np.testing.assert_allclose(one, other, atol=0.02)


def test_a_config_without_the_field_hears_what_off_hears():
    clips = batch_of(speech())
    old = make_config()
    del old.frontend["level"]
    off = evaluation_inputs(make_config(level="off"), clips)["audio"]
    np.testing.assert_array_equal(evaluation_inputs(old, clips)["audio"], off)
    assert base_config().frontend.level == "off"


@pytest.mark.parametrize("size", ["study", "small", "thesis"])
def test_shipped_fusion_configs_set_the_level(size):
    assert load_config(f"mrpn.py:size={size}").frontend.level == "rms"
    assert load_config(f"resnet_lstm.py:modality=audio,size={size}").frontend.level == "rms"


@pytest.mark.parametrize("inputs", [training_inputs, evaluation_inputs])
@pytest.mark.parametrize("level", ["peak", None, 1])
def test_an_unknown_level_is_one_clear_line(inputs, level):
    with pytest.raises(ValueError, match=r"^frontend.level is .*; expected one of off, rms$"):
        inputs(make_config(level=level), batch_of(speech()))
