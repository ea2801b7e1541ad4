"""The voice: published tendencies of prosody, measured on the sound itself."""

import dataclasses

import numpy as np
import pytest

from data_prep.synthetic.clip import Clip, Format
from data_prep.synthetic.plan import Knobs, plan_corpus
from data_prep.synthetic.sound.speech import SENTENCES, articulate
from data_prep.synthetic.sound.voice import SAMPLE_RATE

WINDOW = 1024


def measured(pcm):
    """Loudness in dB, median pitch in Hz, its spread in semitones, and brightness in dB."""
    x = pcm.astype(float) / 32768
    frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::256] * np.hanning(WINDOW)
    power = (frames**2).mean(axis=1)
    loud = frames[power > 0.2 * power.max()]
    spectrum = np.abs(np.fft.rfft(loud, 2 * WINDOW)) ** 2
    correlation = np.fft.irfft(spectrum)
    lags = np.arange(SAMPLE_RATE // 500, SAMPLE_RATE // 60)
    periodic = correlation[:, lags] / correlation[:, :1] / (1 - lags / WINDOW)
    pitch = SAMPLE_RATE / lags[periodic.argmax(axis=1)]
    voiced = periodic.max(axis=1) > 0.5
    pitch = pitch[voiced]
    low, high = np.percentile(pitch, (15, 85))
    rates = np.fft.rfftfreq(2 * WINDOW, 1 / SAMPLE_RATE)
    upper, lower = (rates > 1500) & (rates < 4000), rates < 1500
    bright = spectrum[voiced][:, upper].sum(axis=1) / spectrum[voiced][:, lower].sum(axis=1)
    return np.array([10 * np.log10(power.max()), np.median(pitch), 12 * np.log2(high / low),
                     10 * np.log10(np.median(bright))])  # fmt: skip


@pytest.fixture(scope="module")
def voices():
    """Emotion -> measures [actors, 4]; one sentence, every emotion at full strength."""
    plans = [p for p in plan_corpus(24, 4, 0) if p.label == "NEU"]
    return {
        emotion: np.array(
            [
                measured(Clip(dataclasses.replace(p, voice={emotion: 1.0} if emotion else {}), 0,
                              Format(size=96), Knobs()).pcm)
                for p in plans
            ]
        )
        for emotion in ("ANG", "SAD", "HAP", "FEA", "")
    }  # fmt: skip


def test_anger_is_louder_higher_and_brighter_than_sadness(voices):
    change = voices["ANG"] - voices["SAD"]
    assert (change[:, 0] > 6).all()
    assert (voices["ANG"][:, 1] > 1.15 * voices["SAD"][:, 1]).all()
    assert (change[:, 3] > 4).all()


def test_joy_has_a_wide_pitch_and_sadness_a_narrow_one(voices):
    assert voices["HAP"][:, 2].mean() > 1.3 * voices[""][:, 2].mean()
    assert voices["SAD"][:, 2].mean() < 0.8 * voices[""][:, 2].mean()


def test_fear_is_higher_than_the_habitual_voice(voices):
    assert (voices["FEA"][:, 1] > 1.25 * voices[""][:, 1]).all()


def test_an_uninformative_voice_does_not_depend_on_the_label():
    plan = next(p for p in plan_corpus(24, 4, 0) if p.label == "ANG")
    silent = [
        Clip(dataclasses.replace(plan, voice={}, label=label), 0, Format(size=96), Knobs()).pcm
        for label in ("ANG", "SAD")
    ]
    assert np.array_equal(*silent)


def test_sadness_speaks_slower_and_silence_frames_the_speech():
    plans = [p for p in plan_corpus(24, 4, 0) if p.label == "NEU"]
    for plan in plans:
        lengths = {}
        for emotion in ("SAD", "FEA"):
            shown = dataclasses.replace(plan, voice={emotion: 1.0})
            pcm = Clip(shown, 0, Format(size=96), Knobs()).pcm.astype(float)
            envelope = np.convolve(np.abs(pcm), np.ones(400) / 400, mode="same")
            spoken = np.flatnonzero(envelope > 0.08 * envelope.max())
            lengths[emotion] = spoken[-1] - spoken[0]
            assert spoken[0] > 0.02 * SAMPLE_RATE
            assert spoken[-1] < len(pcm) - 0.02 * SAMPLE_RATE
        assert lengths["SAD"] > 1.15 * lengths["FEA"]


@pytest.mark.parametrize("sentence", list(SENTENCES))
def test_every_sentence_opens_the_lips_and_rests_before_and_after(sentence):
    said = articulate(sentence, 0.3, 1.4, 2.0, np.random.default_rng(0))
    assert said.voice[:40].max() == said.voice[-40:].max() == 0
    assert said.opening.max() > 0.5
    assert (said.formants[:, 0] > 200).all()
    assert (np.diff(said.formants, axis=1) > 0).all()
