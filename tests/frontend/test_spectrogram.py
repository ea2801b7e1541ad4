"""Spectrograms against librosa, on the clip's own samples alone; segments; the way back."""

import functools

import jax
import librosa
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aver_jax.frontend import evaluation_inputs, spectrogram
from aver_jax.frontend.spectrogram import (
    Settings,
    assembled,
    checked_settings,
    frames_of,
    frequencies,
    num_frames,
    num_segments,
    samples_of,
)
from aver_jax.input.clips import SAMPLE_RATE
from data_prep.media import decode

RATE = spectrogram.SAMPLE_RATE
# Sizes that do not divide each other, so that a wrong one shows.
ODD = Settings(n_fft=96, window=80, hop=20, segment=15, overlap=0.4)


def of_librosa(settings, pcm):
    """[F, frames] from the clip's own samples, in float64."""
    frames = 1 + len(pcm) // settings.hop
    # librosa warns of sounds shorter than a window; zeros follow in any case.
    pcm = np.pad(pcm, (0, max(0, settings.n_fft - len(pcm))))
    stft = librosa.stft(
        pcm / 32_768,
        n_fft=settings.n_fft,
        win_length=settings.window,
        hop_length=settings.hop,
        center=True,
        pad_mode="constant",
    )
    magnitudes = np.abs(stft)[:, :frames]
    if settings.bands:
        power = librosa.feature.melspectrogram(
            S=magnitudes**2, sr=RATE, n_fft=settings.n_fft, n_mels=settings.bands
        )
        if settings.scale == "db":
            return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
        return np.log1p(np.sqrt(power))
    if settings.scale == "db":
        return librosa.amplitude_to_db(magnitudes, ref=1.0, amin=1e-5, top_db=None)
    return np.log1p(magnitudes)


def whole_spectrogram(settings, audio, length):
    """[B, F, frames], which segments are cut from."""
    return frames_of(settings, samples_of(audio, length), length).swapaxes(1, 2)


@functools.cache
def compiled(settings):
    return jax.jit(functools.partial(whole_spectrogram, settings))


def of_clip(settings, pcm, samples=48_000):
    """[F, frames] of a clip that lies in a buffer of that many samples."""
    audio = np.zeros((1, samples), np.int16)
    audio[0, : len(pcm)] = pcm
    whole = np.asarray(compiled(settings)(audio, np.array([len(pcm)], np.int32)))[0]
    frames = 1 + len(pcm) // settings.hop
    assert not whole[:, frames:].any()
    return whole[:, :frames]


@pytest.fixture(scope="module")
def spoken(real_clips):
    """int16 sound of three real clips."""
    files = sorted((real_clips / "audio").glob("*.mp3"))
    assert len(files) == 3
    return [decode(file, video=False).pcm for file in files]


@pytest.fixture(scope="module")
def synthetic():
    """Sounds whose spectra differ most: a chirp, a loud tone cut off, a click, noise, silence."""
    rng = np.random.default_rng(0)
    seconds = np.arange(20_011) / RATE
    click = np.zeros(9000)
    click[4321] = 32_767
    sounds = {
        "chirp": 16_000 * np.sin(2 * np.pi * (100 * seconds + 3000 * seconds**2)),
        "tone": 30_000 * np.sin(2 * np.pi * 440 * seconds),
        "click": click,
        "noise": rng.uniform(-32_768, 32_767, 20_000),
        "silence": np.zeros(7000),
    }
    return {name: sound.astype(np.int16) for name, sound in sounds.items()}


def test_the_sample_rate_is_that_of_the_batches():
    assert RATE == SAMPLE_RATE == 16_000


@pytest.mark.parametrize("bands", [0, 64])
def test_log1p_of_real_speech_is_librosas(spoken, bands):
    for pcm in spoken:
        actual, expected = (f(Settings(bands=bands), pcm) for f in (of_clip, of_librosa))
        assert actual.shape == expected.shape
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, atol=3e-6)


def test_decibels_of_real_speech_are_librosas(spoken):
    """Within 80 dB of a frame's loudest value; float32 cannot resolve what lies deeper."""
    for pcm in spoken:
        actual, expected = (f(Settings(scale="db"), pcm) for f in (of_clip, of_librosa))
        heard = expected > expected.max(axis=0) - 80
        assert heard.mean() > 0.95
        np.testing.assert_allclose(actual[heard], expected[heard], atol=1e-2)
        np.testing.assert_allclose(actual, expected, atol=0.5)
        mel, expected = (f(Settings(bands=64, scale="db"), pcm) for f in (of_clip, of_librosa))
        np.testing.assert_allclose(mel, expected, atol=1e-2)


@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(bands=40), Settings(window=400, hop=160), ODD],
    ids=["thesis", "mel", "short window", "odd"],
)
def test_log1p_of_any_sound_is_librosas(synthetic, settings):
    for name, pcm in synthetic.items():
        np.testing.assert_allclose(
            of_clip(settings, pcm), of_librosa(settings, pcm), atol=2e-5, err_msg=name
        )


def test_decibels_have_a_floor_and_no_ceiling(synthetic):
    np.testing.assert_allclose(of_clip(Settings(scale="db"), synthetic["silence"]), -100)
    loud = of_clip(Settings(scale="db"), synthetic["tone"])
    assert loud.max() == pytest.approx(of_librosa(Settings(scale="db"), synthetic["tone"]).max())
    # librosa's default would cut at 80 dB below that.
    assert loud.min() < loud.max() - 110


def test_standardisation_leaves_frames_past_the_end_at_zero(synthetic):
    plain, standard = Settings(), Settings(mean=0.25, deviation=0.5)
    chirp = synthetic["chirp"]
    expected = (of_clip(plain, chirp) - 0.25) / 0.5
    np.testing.assert_allclose(of_clip(standard, chirp), expected, atol=1e-5)


def test_samples_past_the_end_are_not_read(synthetic):
    clip = synthetic["chirp"][:5000]
    dirty = np.full((1, 48_000), 12_345, np.int16)
    dirty[0, :5000] = clip
    whole = np.asarray(compiled(Settings())(dirty, np.array([5000], np.int32)))[0]
    np.testing.assert_array_equal(whole[:, :79], of_clip(Settings(), clip))
    assert not whole[:, 79:].any()


class Config:
    """What the front end reads of a config, as the train step gives it."""

    def __init__(self, fields, seed=0):
        self.seed, self.frontend = seed, {"spectrogram": fields}


@functools.cache
def inputs_of(fields):
    config = Config(dict(fields))
    return jax.jit(lambda batch: evaluation_inputs(config, batch))


FIELDS = (("n_fft", 96), ("window", 80), ("hop", 20), ("segment", 15), ("overlap", 0.4))


@settings(max_examples=40, deadline=None)
@given(length=st.integers(0, 1000), seed=st.integers(0, 10))
@example(length=0, seed=0)
@example(length=1, seed=0)
@example(length=279, seed=0)  # 14 frames
@example(length=280, seed=0)  # 15 frames: one full segment
@example(length=300, seed=0)  # 16, the last centred on the end: still one segment
@example(length=320, seed=0)  # 17: the second begins
@example(length=480, seed=0)  # 25, as many as two segments cover, and one on the end
@example(length=1000, seed=0)
def test_valid_segments_are_the_clips_own_in_any_buffer(length, seed):
    pcm = np.random.default_rng(seed).integers(-20_000, 20_000, length, dtype=np.int16)
    frames = 1 + length // 20 if length else 0
    whole = of_librosa(ODD, pcm) if length else np.zeros((49, 0))
    assert whole.shape[1] == frames
    # Segments of 15 frames, a new one every 9, as many as it takes to cover every frame but the
    # one that is centred on the end.
    expected = []
    while frames and (not expected or 9 * (len(expected) - 1) + 15 < length // 20):
        part = whole[:, 9 * len(expected) :][:, :15]
        expected.append(np.pad(part, ((0, 0), (0, 15 - part.shape[1]))))
    for samples in (1000, 1001, 1777):
        audio = np.zeros((1, samples), np.int16)
        audio[0, :length] = pcm
        batch = {"audio": audio, "audio_length": np.array([length], np.int32)}
        inputs = inputs_of(FIELDS)(batch)
        segments = np.asarray(inputs["audio"][0])
        assert int(inputs["audio_segments"][0]) == len(expected)
        assert segments.shape == (num_segments(ODD, samples), 49, 15)
        assert len(segments) >= len(expected)
        if expected:
            np.testing.assert_allclose(segments[: len(expected)], expected, atol=2e-5)
            past = np.concatenate(segments[: len(expected)].transpose(0, 2, 1))
            last = frames - 9 * (len(expected) - 1)
            assert not past[15 * (len(expected) - 1) + last :].any()


def test_counts_of_frames_and_segments():
    # The thesis' settings: 250 frames are 1.0 s, a new segment every .5 s.
    seconds = np.array([0, 1, 0.5 * RATE, 1.0 * RATE, 1.5 * RATE, 3.0 * RATE, 6.0 * RATE], np.int32)
    np.testing.assert_array_equal(num_frames({}, seconds), [0, 1, 126, 251, 376, 751, 1501])
    np.testing.assert_array_equal(num_segments({}, seconds), [0, 1, 1, 1, 2, 5, 11])
    assert num_segments({}, 0) == 0
    assert num_segments({}, RATE) == 1
    assert num_segments({}, RATE + 63) == 1
    assert num_segments({}, RATE + 64) == 2
    assert num_segments({"overlap": 0}, 6 * RATE) == 6


def test_frequencies_of_rows(synthetic):
    hz = frequencies({})
    assert (len(hz), hz[0], hz[-1]) == (257, 0, 8000)
    for bands in (0, 64):
        hz = frequencies({"bands": bands})
        loudest = hz[of_clip(Settings(bands=bands), synthetic["tone"])[:, 100].argmax()]
        assert abs(loudest - 440) < 40
    assert len(hz) == 64
    assert (np.diff(hz) > 0).all()


def test_segments_assembled_are_the_whole_spectrogram(synthetic):
    pcm = np.zeros((2, 3000), np.int16)
    lengths = np.array([3000, 1234], np.int32)
    for row, length in zip(pcm, lengths, strict=True):
        row[:length] = synthetic["noise"][:length]
    inputs = inputs_of(FIELDS)({"audio": pcm, "audio_length": lengths})
    whole = np.array(whole_spectrogram(ODD, pcm, lengths))
    again = assembled(inputs["audio"], ODD, whole.shape[2], inputs["audio_segments"])
    # 150 frames are 16 segments exactly; the frame centred on the end is in none of them.
    assert not np.any(again[0, :, 150])
    whole[0, :, 150] = 0
    np.testing.assert_allclose(again, whole, atol=1e-5)


def test_maps_of_segments_lie_where_their_cells_look_and_fade_into_each_other():
    maps = np.random.default_rng(0).uniform(size=(2, 3, 4, 2)).astype(np.float32)
    counts = np.array([3, 2], np.int32)
    frames = 40
    actual = np.asarray(assembled(maps, ODD, frames, counts))
    assert actual.shape == (2, 49, frames)
    # 4 cells over 49 bands are 16 apart, 2 over 15 frames are 8 apart.
    rows = np.stack([np.interp(np.arange(49), 16 * np.arange(4), row) for row in np.eye(4)], 1)
    columns = np.stack([np.interp(np.arange(15), [0, 8], row) for row in np.eye(2)], 1)
    fade = np.minimum(np.arange(1, 16), np.arange(15, 0, -1))
    for clip in range(2):
        total, covers = np.zeros((49, 100)), np.zeros(100)
        for n in range(counts[clip]):
            total[:, 9 * n : 9 * n + 15] += fade * (rows @ maps[clip, n] @ columns.T)
            covers[9 * n : 9 * n + 15] += fade
        expected = (total / np.maximum(covers, 1))[:, :frames]
        np.testing.assert_allclose(actual[clip], expected, atol=1e-5)
    assert not actual[1, :, 24:].any()
    np.testing.assert_allclose(assembled(maps[:1], ODD, frames)[0], actual[0], atol=1e-6)


def test_segments_that_disagree_leave_no_seam():
    settings = {"segment": 100, "overlap": 0.5}
    maps = np.zeros((1, 2, 9, 7), np.float32)
    maps[:, 1] = 1
    line = np.asarray(assembled(maps, settings, 150))[0, 0]
    assert np.abs(np.diff(line)).max() < 0.03
    np.testing.assert_allclose(line[[0, 49, 100, 149]], [0, 0, 1, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hop": 0}, "hop is 0; expected a whole number from 1 to 512"),
        ({"hop": 64.5}, "hop is 64.5; expected a whole number"),
        ({"window": 600}, "window is 600; expected a whole number from 2 to 512"),
        ({"n_fft": 511, "window": 400}, "n_fft is 511; expected an even number"),
        ({"scale": "power"}, "scale is 'power'; expected one of log1p, db"),
        ({"bands": 200}, "bands is 200, of which .* hold no frequency of a transform of 512"),
        ({"overlap": 1}, r"overlap is 1; expected a number from 0 to 0.95"),
        ({"deviation": 0.0}, "deviation is 0.0; expected"),
        ({"mean": "0.5"}, "mean is '0.5'; expected a number"),
        ({"window_size": 3}, "unknown fields window_size; known: n_fft, window"),
    ],
)
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=rf"^frontend.spectrogram.*{message}"):
        checked_settings(fields)


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match=r"batch\['audio'\] is float32 \[1, 9\]; expected int16"):
        samples_of(np.zeros((1, 9), np.float32), np.zeros(1, np.int32))
    with pytest.raises(ValueError, match=r"audio_length'\] is \[2\]; expected \[1\]"):
        samples_of(np.zeros((1, 9), np.int16), np.zeros(2, np.int32))
