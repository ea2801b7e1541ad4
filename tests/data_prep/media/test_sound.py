"""The sound of a clip: never mixed to nothing, on its time stamps, silence called by its name."""

import av
import numpy as np
import pytest

from data_prep.audible import audible_seconds, audible_stretches
from data_prep.errors import MissingModality
from data_prep.media import decode
from data_prep.media.sound import Sound

RATE = 16_000


def voice(seconds: float, rate: int = RATE) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return np.round(6000 * np.sin(2 * np.pi * 220 * times)).astype(np.int16)


def blocks_of(pcm: np.ndarray, rate: int, layout: str, size: int = 1024):
    """Yields av frames of int16 [channels, S]."""
    for first in range(0, pcm.shape[1], size):
        part = np.ascontiguousarray(pcm[:, first : first + size].T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
        frame.sample_rate = rate
        yield first / rate, frame


def collected(pcm, rate=RATE, layout="stereo", stretch=1.0):
    sound = Sound()
    for seconds, frame in blocks_of(np.atleast_2d(pcm), rate, layout):
        sound.add(seconds * stretch, frame)
    return sound.samples()


def level(pcm: np.ndarray) -> float:
    return float(np.sqrt(np.square(pcm.astype(float)).mean()))


def test_channels_that_cancel_each_other_are_not_mixed():
    one = voice(1.0)
    assert level(collected(np.stack([one, -one]))) == pytest.approx(level(one), rel=0.02)
    assert level(collected(np.stack([one, -0.9 * one]).astype(np.int16))) > 0.8 * level(one)


@pytest.mark.parametrize("other", [1.0, 0.5, 0.0])
def test_channels_in_phase_are_mixed_as_ever(other):
    one = voice(1.0)
    mixed = collected(np.stack([one, (other * one).astype(np.int16)]))
    assert level(mixed) == pytest.approx((1 + other) / 2 * level(one), rel=0.02)


def test_a_voice_in_one_of_six_channels_keeps_its_level():
    pcm = np.zeros((6, RATE), np.int16)
    pcm[2] = voice(1.0)
    assert level(collected(pcm, layout="5.1")) == pytest.approx(level(pcm[2]), rel=0.05)


def clicks(seconds: float) -> np.ndarray:
    """A hum with a click at every half second."""
    pcm = np.round(60 * np.sin(np.arange(round(seconds * RATE)) / 20)).astype(np.int16)
    for second in np.arange(0.5, seconds, 0.5):
        pcm[round(second * RATE) : round(second * RATE) + 40] = 16_000
    return pcm


def onsets(pcm: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(pcm.astype(int)) > 8_000)
    return loud[np.r_[True, np.diff(loud) > RATE // 10]] / RATE


@pytest.mark.parametrize("stretch", [0.98, 1.02, 1.0, 0.995])
def test_sound_stays_on_its_time_stamps_for_a_long_time(stretch):
    heard = onsets(collected(clicks(40.0)[None], layout="mono", stretch=stretch))
    expected = np.arange(0.5, 40, 0.5) * stretch
    # A click that falls into what is left out is not heard.
    distance = np.abs(heard[:, None] - expected).min(axis=1)
    assert len(heard) > 70
    assert distance.max() < 0.06


def test_sound_that_changes_its_format_goes_on():
    sound = Sound()
    at = 0.0
    for rate, layout, channels in ((44_100, "mono", 1), (44_100, "stereo", 2), (22_050, "mono", 1)):
        pcm = np.tile(voice(1.0, rate), (channels, 1))
        for seconds, frame in blocks_of(pcm, rate, layout):
            sound.add(at + seconds, frame)
        at += 1.0
    pcm = sound.samples()
    assert len(pcm) == pytest.approx(3 * RATE, abs=400)
    for second in range(3):
        part = pcm[second * RATE + 2000 : (second + 1) * RATE - 2000]
        assert level(part) == pytest.approx(level(voice(1.0)), rel=0.05)


def write(path, *sounds, default=0):
    """A Matroska file of sounds, each int16 [S], and a picture."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in sounds]
        for number, stream in enumerate(streams):
            stream.disposition = (
                av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            )
        for value in range(25):
            image = np.full((48, 64, 3), 8 * value, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        for stream, pcm in zip(streams, sounds, strict=True):
            block = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
            block.sample_rate, block.pts = RATE, 0
            container.mux(stream.encode(block))
            container.mux(stream.encode(None))


@pytest.mark.parametrize("pcm", [np.zeros(RATE, np.int16), np.ones(RATE, np.int16), voice(0.05)])
def test_silence_is_no_sound(tmp_path, pcm):
    write(tmp_path / "a.mkv", pcm)
    with pytest.raises(MissingModality, match=r"silent sound \(0.0\d s that can be heard\)"):
        decode(tmp_path / "a.mkv")
    clip = decode(tmp_path / "a.mkv", require=("video",))
    assert not clip.pcm.size
    assert clip.notes[0].startswith("silent sound")
    write(tmp_path / "b.mkv", voice(1.0))
    assert decode(tmp_path / "b.mkv").notes == ()


def test_seconds_that_can_be_heard():
    pause = np.zeros(round(0.9 * RATE), np.int16)
    pcm = np.concatenate([voice(0.5), pause, voice(0.25)])
    assert audible_seconds(pcm) == pytest.approx(0.75, abs=0.03)
    assert audible_seconds(np.zeros(0, np.int16)) == 0
    # A silence of a second is no pause.
    np.testing.assert_allclose(audible_stretches(pcm), [(0, 1.65)], atol=0.03)
    longer = np.concatenate([np.zeros(2 * RATE, np.int16), pcm, np.zeros(3 * RATE, np.int16), pcm])
    np.testing.assert_allclose(audible_stretches(longer), [(2, 3.65), (6.65, 8.3)], atol=0.03)
    assert audible_stretches(0 * pcm) == []


def test_the_default_sound_is_taken_and_a_silent_one_is_not(tmp_path):
    silence, one = np.zeros(RATE, np.int16), voice(1.0)
    quiet = (one // 4).astype(np.int16)
    write(tmp_path / "a.mkv", one, quiet, default=1)
    clip = decode(tmp_path / "a.mkv")
    assert level(clip.pcm) == pytest.approx(level(quiet), rel=0.02)
    assert clip.notes == ("2 sounds: took a:1",)
    asked = decode(tmp_path / "a.mkv", streams=("a:0",))
    assert level(asked.pcm) == pytest.approx(level(one), rel=0.02)
    assert asked.notes == ()
    write(tmp_path / "b.mkv", silence, one)
    assert level(decode(tmp_path / "b.mkv").pcm) == pytest.approx(level(one), rel=0.02)
    with pytest.raises(Exception, match="no stream a:2; it has a:0, a:1"):
        decode(tmp_path / "a.mkv", streams=("a:2",))
