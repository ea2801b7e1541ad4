"""Decoding and writing of media files: times, sound, broken files."""

import gc
import os
import struct
import weakref

import av
import numpy as np
import pytest

from data_prep import media
from data_prep.errors import UnusableClip
from data_prep.media import decode, recording_seconds, write_clip

RATE = 16_000
BEEP = slice(4_000, 4_400)


def ramp(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return [np.full((height, width, 3), 20 + 8 * i, np.uint8) for i in range(count)]


def beep(samples: int = 12_800) -> np.ndarray:
    """A soft hum with one beep in it, so that a shift in time shows."""
    pcm = np.round(60 * np.sin(2 * np.pi * 200 * np.arange(samples) / RATE)).astype(np.int16)
    pcm[BEEP] = 12_000 * np.sign(np.sin(2 * np.pi * 1_000 * np.arange(400) / RATE))
    return pcm


def onset(pcm: np.ndarray) -> int:
    return int(np.argmax(np.abs(pcm.astype(int)) > 4_000))


def test_written_clip_comes_back_with_its_frames_times_and_sound(tmp_path):
    write_clip(tmp_path / "a.mp4", ramp(20), 25, beep(), RATE)
    clip = decode(tmp_path / "a.mp4")
    assert len(clip.frames) == 20
    assert clip.frames[0].shape == (48, 64, 3)
    assert clip.frames[0].dtype == np.uint8
    np.testing.assert_allclose([f.mean() for f in clip.frames], 20 + 8 * np.arange(20), atol=3)
    np.testing.assert_allclose(clip.timestamps, np.arange(20) / 25, atol=1e-4)
    assert clip.timestamps.dtype == np.float32
    assert clip.pcm.dtype == np.int16
    assert onset(clip.pcm) == pytest.approx(BEEP.start, abs=8)


def test_odd_sizes_are_padded_by_their_own_edge(tmp_path):
    write_clip(tmp_path / "odd.mp4", ramp(3, 47, 63), 25, beep(), RATE)
    frame = decode(tmp_path / "odd.mp4").frames[0]
    assert frame.shape == (48, 64, 3)
    np.testing.assert_allclose(frame[-1, -1], 20, atol=4)


def test_uneven_times_are_kept_and_video_may_start_after_the_sound(tmp_path):
    times = np.array([0.027, 0.060, 0.093, 0.200, 0.233])
    write_clip(tmp_path / "late.mp4", ramp(5), 30, beep(), RATE, timestamps=times)
    clip = decode(tmp_path / "late.mp4")
    np.testing.assert_allclose(clip.timestamps, times, atol=1e-3)
    assert onset(clip.pcm) == pytest.approx(BEEP.start, abs=8)


def write_sound_at(path, starts: list[float]) -> None:
    """A Matroska file: frames from time 0, and a beep block at each of the times."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for image in ramp(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        for start in starts:
            block = av.AudioFrame.from_ndarray(beep(6_400)[None], format="s16", layout="mono")
            block.sample_rate, block.pts = RATE, round(start * RATE)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def write_cut(path, first: float) -> None:
    """A Matroska file whose clock starts at a time of its own: frames and a beep."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for index, image in enumerate(ramp(25)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(first * 25) + index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(beep(16_000)[None], format="s16", layout="mono")
        block.sample_rate, block.pts = RATE, round(first * RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))


@pytest.mark.parametrize("first", [300.0, 100_000.0])
def test_a_clip_whose_clock_starts_late_is_as_good_as_any(tmp_path, first):
    write_cut(tmp_path / "cut.mkv", first)
    clip = decode(tmp_path / "cut.mkv")
    np.testing.assert_allclose(clip.timestamps, np.arange(25) / 25, atol=1e-3)
    assert onset(clip.pcm) == pytest.approx(BEEP.start, abs=40)


def test_frames_alone_are_not_measured_by_the_length_of_the_sound(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        write_clip(tmp_path / name, ramp(20), 25, beep(10 * RATE), RATE)
        assert len(decode(tmp_path / name, audio=False).frames) == 20
        assert len(decode(tmp_path / name).pcm) == pytest.approx(10 * RATE, abs=2_000)


def test_what_cannot_be_opened_has_its_reason(tmp_path):
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    with pytest.raises(UnusableClip, match="symbolic links"):
        decode(tmp_path / "loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UnusableClip, match="not a regular file"):
        decode(tmp_path / "pipe.mp4")
    with pytest.raises(UnusableClip, match="cannot be read"):
        decode(tmp_path / ("x" * 300))
    with pytest.raises(UnusableClip, match="cannot be read"):
        decode("nul\0.mp4")


def test_sound_that_starts_late_is_padded_to_time_zero(tmp_path):
    write_sound_at(tmp_path / "late.mkv", [0.2])
    clip = decode(tmp_path / "late.mkv")
    assert clip.timestamps[0] == 0
    assert onset(clip.pcm) == pytest.approx(0.2 * RATE + BEEP.start, abs=40)


def test_missing_sound_inside_a_clip_becomes_silence(tmp_path):
    write_sound_at(tmp_path / "gap.mkv", [0.0, 0.6])
    pcm = decode(tmp_path / "gap.mkv").pcm
    assert len(pcm) == pytest.approx(RATE, abs=40)
    second = 6_400 + onset(pcm[6_400:])
    assert second == pytest.approx(0.6 * RATE + BEEP.start, abs=40)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_sound_is_resampled_to_16_khz_in_place(tmp_path, rate):
    pcm = np.round(60 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate)).astype(np.int16)
    pcm[rate // 2 : rate // 2 + rate // 50] = 12_000
    write_clip(tmp_path / "r.mp4", ramp(25), 25, pcm, rate)
    assert onset(decode(tmp_path / "r.mp4").pcm) == pytest.approx(RATE / 2, abs=40)


def test_a_clip_too_large_to_hold_gives_the_same_frames_in_any_order(tmp_path):
    write_clip(tmp_path / "a.mp4", ramp(8), 25, beep(), RATE)
    held = decode(tmp_path / "a.mp4").frames
    streamed = decode(tmp_path / "a.mp4", held_bytes=0).frames
    assert not isinstance(streamed, list)
    assert len(streamed) == 8
    for index in (0, 5, 5, 2, -1):
        np.testing.assert_array_equal(streamed[index], held[index])
    for one, other in zip(streamed, held, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError):
        streamed[8]


def test_sound_beside_the_clip_serves_only_a_clip_without_its_own(tmp_path):
    write_clip(tmp_path / "silent.mp4", ramp(20), 25, np.zeros(0), RATE)
    write_clip(tmp_path / "sound.mp4", ramp(20), 25, beep(), RATE)
    write_clip(tmp_path / "other.mp4", ramp(2), 25, np.roll(beep(), 4_000), RATE)
    without = decode(tmp_path / "silent.mp4", audio_path=tmp_path / "sound.mp4")
    assert onset(without.pcm) == pytest.approx(BEEP.start, abs=8)
    with pytest.raises(UnusableClip, match=r"its sound file gone.wav: no such file"):
        decode(tmp_path / "silent.mp4", audio_path=tmp_path / "gone.wav")
    own = decode(tmp_path / "sound.mp4", audio_path=tmp_path / "other.mp4")
    assert onset(own.pcm) == pytest.approx(BEEP.start, abs=8)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, 0, -1, 0, 0), -1), ((0, -1, 0, 1, 0, 0), 1), ((-1, 0, 0, 0, -1, 0), 2)],
)
def test_a_clip_filmed_with_the_phone_turned_stands_upright(tmp_path, matrix, turns):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :8], image[:8] = (255, 0, 0), (0, 255, 0)
    write_clip(tmp_path / "a.mp4", [image] * 3, 25, beep(), RATE)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    # The display matrix of the first track header, 16.16 fixed point (ISO/IEC 14496-12, 8.3.2).
    place = data.find(b"tkhd") + 44
    data[place : place + 24] = struct.pack(">6i", *(65_536 * entry for entry in matrix))
    (tmp_path / "turned.mp4").write_bytes(data)
    frame = decode(tmp_path / "turned.mp4").frames[0].astype(int)
    np.testing.assert_allclose(frame.mean(2), np.rot90(image, turns).mean(2), atol=40)


def test_what_is_not_required_may_be_missing(tmp_path):
    write_clip(tmp_path / "silent.mp4", ramp(4), 25, np.zeros(0), RATE)
    clip = decode(tmp_path / "silent.mp4", require=("video",))
    assert len(clip.frames) == 4
    assert clip.pcm.shape == (0,)
    with pytest.raises(UnusableClip, match="no audio"):
        decode(tmp_path / "silent.mp4")


def test_a_recording_longer_than_the_limit_is_refused(tmp_path, monkeypatch):
    write_clip(tmp_path / "a.mp4", ramp(20), 25, beep(), RATE)
    monkeypatch.setattr(media.reader, "MAX_SECONDS", 0.3)
    with pytest.raises(UnusableClip, match="cut it into clips"):
        decode(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1001_TIE_ANG_XX.mp4", "empty file"),
        ("1001_IOM_ANG_XX.mp4", "truncated"),
        ("1001_ITS_ANG_XX.flv", "truncated"),
        ("1001_IWW_ANG_XX.mp4", "not a media file"),
        ("1001_TAI_ANG_XX.mp4", r"no video stream \(sound only\)"),
        ("1001_MTI_ANG_XX.mp4", "no audio"),
        ("1001_ITH_ANG_XX.mp4", "single video frame"),
        ("absent.mp4", "no such file"),
        ("", "a folder"),
    ],
)
def test_broken_files_have_their_own_reason(broken_folder, name, reason, capfd):
    with pytest.raises(UnusableClip, match=reason):
        decode(broken_folder / name)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_truncated_real_clip_says_so(real_clips, tmp_path, share):
    whole = next((real_clips / "clips").glob("*.flv")).read_bytes()
    (tmp_path / "cut.flv").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnusableClip, match="truncated"):
        decode(tmp_path / "cut.flv")


def test_real_clips_have_decoded_times_not_the_headers_rate(real_clips):
    clip = decode(real_clips / "clips/1001_DFA_ANG_XX.flv")
    assert len(clip.frames) == 67
    assert clip.frames[0].shape == (360, 480, 3)
    assert clip.timestamps[0] == pytest.approx(0.027)
    assert np.median(np.diff(clip.timestamps)) == pytest.approx(1 / 30, abs=5e-4)
    assert len(clip.pcm) / RATE == pytest.approx(2.27, abs=0.01)


def test_a_clip_read_again_is_freed_as_soon_as_it_is_left(tmp_path):
    # A cycle would keep a whole decoder per clip until the garbage collector comes round.
    frames = [np.full((64, 64, 3), 10 * i, np.uint8) for i in range(6)]
    write_clip(tmp_path / "a.mp4", frames, 10, np.zeros(0, np.int16), 16_000)
    gc.collect()
    gc.disable()
    try:
        streamed = decode(tmp_path / "a.mp4", audio=False, held_bytes=0).frames
        assert streamed[3].shape == (64, 64, 3)
        left = weakref.ref(streamed)
        del streamed
        assert left() is None
    finally:
        gc.enable()


def cut_in_two(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("suffix", ["mkv", "flv", "ts", "avi"])
def test_a_cut_file_is_refused_or_used_as_far_as_it_goes_in_every_container(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(75)]
    with av.open(str(path), "w") as container:
        video = container.add_stream("flv" if suffix == "flv" else "mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
    assert len(decode(path, audio=False).frames) == 75
    cut_in_two(path)
    if suffix != "ts":  # whose packets are whole wherever it is cut
        with pytest.raises(UnusableClip, match=r"^truncated: cut off after \d\.\d s"):
            decode(path, audio=False)
        clip = decode(path, audio=False, keep_truncated=True)
        assert 20 < len(clip.frames) < 60
        (note,) = clip.notes
        assert note.startswith("cut off after ")


def test_files_joined_one_after_the_other_are_read_to_the_end(tmp_path):
    with av.open(str(tmp_path / "a.ts"), "w") as container:
        video = container.add_stream("mpeg2video", rate=25)
        audio = container.add_stream("mp2", rate=RATE, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for image in ramp(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(beep(16_000)[None], format="s16", layout="mono")
        block.sample_rate, block.pts = RATE, 0
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    one = decode(tmp_path / "a.ts")
    (tmp_path / "b.ts").write_bytes(2 * (tmp_path / "a.ts").read_bytes())
    both = decode(tmp_path / "b.ts")
    assert len(both.frames) == 2 * len(one.frames)
    assert len(both.pcm) == pytest.approx(2 * len(one.pcm), abs=2_000)
    assert (np.diff(both.timestamps) > 0).all()
    assert both.timestamps[-1] == pytest.approx(2 * one.timestamps[-1], abs=0.15)
    assert onset(both.pcm[len(one.pcm) :]) == pytest.approx(onset(one.pcm), abs=1_600)


def test_of_two_pictures_the_default_or_the_larger_is_taken(tmp_path):
    def write(path, default):
        with av.open(str(path), "w") as container:
            streams = []
            for number, (height, width) in enumerate([(24, 32), (48, 64)]):
                stream = container.add_stream("mpeg4", rate=25)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                kind = av.stream.Disposition
                stream.disposition = kind.default if number == default else kind(0)
                streams.append(stream)
            for stream in streams:
                for image in ramp(10, stream.height, stream.width):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                container.mux(stream.encode(None))

    for default, asked, size in ((0, (), (24, 32)), (1, (), (48, 64)), (0, ("v:1",), (48, 64))):
        path = tmp_path / f"{default}{len(asked)}.mkv"
        write(path, default)
        clip = decode(path, audio=False, streams=asked)
        assert clip.frames[0].shape[:2] == size
        took = 1 if size == (48, 64) else 0
        assert clip.notes == (f"2 pictures: took v:{took} ({size[1]}x{size[0]})",)


def test_a_git_lfs_pointer_says_how_to_get_the_file(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 272862\n"
    (tmp_path / "a.flv").write_text(pointer)
    with pytest.raises(UnusableClip, match=r"a Git LFS pointer, .*: run `git lfs pull`"):
        decode(tmp_path / "a.flv")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("held_bytes", [1 << 30, 0])
def test_a_span_of_a_file_has_its_own_frames_and_sound(tmp_path, suffix, held_bytes):
    path = tmp_path / f"a.{suffix}"
    write_clip(path, ramp(25), 5, np.tile(beep(8_000), 10), RATE)
    whole = decode(path)
    assert recording_seconds(path) == pytest.approx(5.0, abs=0.15)
    for start, stop in ((0.0, 2.0), (1.7, 3.1), (4.0, 9.0)):
        part = decode(path, span=(start, stop), held_bytes=held_bytes)
        inside = (whole.timestamps >= start - 1e-4) & (whole.timestamps < stop - 1e-4)
        np.testing.assert_allclose(part.timestamps, whole.timestamps[inside] - start, atol=1e-3)
        expected = [whole.frames[i].mean() for i in np.flatnonzero(inside)]
        np.testing.assert_allclose([f.mean() for f in part.frames], expected, atol=0.5)
        # The sound is in step: every beep where it is in the whole.
        first = onset(part.pcm) / RATE + start
        beeps = (np.arange(10) * 8_000 + BEEP.start) / RATE
        assert np.abs(beeps - first).min() < 0.005
        assert part.notes == ()
