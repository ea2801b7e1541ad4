"""Files as people have them: each prediction is that of what the file really shows, or says why."""

import csv

import av
import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.errors import UnusableClip
from aver_jax.prediction.predictor import Predictor
from aver_jax.runs.run_folder import load_run
from data_prep.media import decode, write_clip

RATE = 16_000


@pytest.fixture(scope="module")
def media(clips):
    """A rendered clip of 1.2 s or more, 128 x 128 pixels, 10 frames a second."""
    return decode(clips[0])


def written(path, frames, pcm, fps=10):
    write_clip(path, list(frames), fps, pcm, RATE)
    return path


def dark(count):
    return [np.full((128, 128, 3), 30, np.uint8)] * count


def test_a_model_of_the_face_does_not_depend_on_the_sound(run, media, tmp_path):
    long_sound = np.tile(media.pcm, 4)
    files = [
        written(tmp_path / f"{name}.mp4", media.frames, pcm)
        for name, pcm in (
            ("plain", media.pcm),
            ("none", media.pcm[:0]),
            ("silent", 0 * media.pcm),
            ("long", long_sound),
        )
    ]
    predictor = Predictor(load_run(run))
    found = [predictor.predict(file) for file in files]
    for one in found:
        np.testing.assert_array_equal(one.probabilities, found[0].probabilities)
        np.testing.assert_array_equal(one.frames, found[0].frames)
        assert one.notes == ()
    # Two frames, and they differ.
    assert (found[0].frames[0] != found[0].frames[1]).any()


def test_a_model_of_the_voice_does_not_depend_on_the_picture(heard_runs, media, tmp_path):
    predictor = Predictor(load_run(heard_runs["voice"]))
    files = [
        written(tmp_path / "short.mp4", media.frames[:4], media.pcm),
        written(tmp_path / "long.mp4", [*media.frames, *dark(20)], media.pcm),
    ]
    one, other = (predictor.predict(file) for file in files)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_a_title_before_the_face_is_not_seen(run, heard_runs, media, tmp_path, capsys):
    count = len(media.frames)
    lead = np.zeros(2 * RATE * count // 10, np.int16)
    pcm = media.pcm[: count * RATE // 10]
    titled = written(
        tmp_path / "title.mp4", [*dark(2 * count), *media.frames], np.concatenate([lead, pcm])
    )
    plain = written(tmp_path / "plain.mp4", media.frames, pcm)
    for folder in (run, heard_runs["n2"]):
        predictor = Predictor(load_run(folder))
        one, other = predictor.predict(titled), predictor.predict(plain)
        assert one.window == pytest.approx((count / 5, 3 * count / 10), abs=0.06)
        assert one.faces == (2, 2)
        assert (one.frames.mean(axis=(1, 2, 3)) > 60).all()
        if folder == run:
            # What is coded after a dark picture differs a little from what is coded first.
            np.testing.assert_allclose(one.frames, other.frames, atol=60)
    assert main(["predict", str(run), str(titled)]) == 0
    told = capsys.readouterr().err
    assert f"predicted from {count / 5:.1f} to {3 * count / 10:.1f} s" in told
    assert "where its face is" in told


def test_black_after_the_face_is_not_seen(heard_runs, media, tmp_path):
    count = len(media.frames)
    file = written(tmp_path / "black.mp4", [*media.frames, *dark(count + 4)], np.tile(media.pcm, 3))
    found = Predictor(load_run(heard_runs["n2"])).predict(file)
    assert found.window[1] == pytest.approx(count / 10, abs=0.1)
    assert (found.frames.mean(axis=(1, 2, 3)) > 60).all()


def test_silent_sound_is_not_heard(heard_runs, media, tmp_path, capsys):
    file = written(tmp_path / "silent.mp4", media.frames, 0 * media.pcm)
    found = Predictor(load_run(heard_runs["n2"])).predict(file)
    assert [str(name) for name in found.used] == ["video"]
    assert found.missing == "silent sound"
    for network in ("n0", "voice"):
        with pytest.raises(UnusableClip, match="silent sound"):
            Predictor(load_run(heard_runs[network])).predict(file)
    assert main(["predict", str(heard_runs["n2"]), str(file)]) == 0
    assert "silent sound" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_people(clips, tmp_path_factory):
    one, other = (decode(clip) for clip in clips)
    count = min(len(one.frames), len(other.frames))
    pairs = zip(one.frames[:count], other.frames[:count], strict=True)
    path = tmp_path_factory.mktemp("two") / "two.mp4"
    return written(path, [np.concatenate(pair, axis=1) for pair in pairs], one.pcm)


def test_of_two_people_one_is_taken_and_said_or_both_have_a_row(run, two_people, tmp_path, capsys):
    assert main(["predict", str(run), str(two_people)]) == 0
    assert "two.mp4: 2 faces: took the longer seen" in capsys.readouterr().err
    words = ["--faces", "all", "--csv", str(tmp_path / "p.csv"), "--overlay", str(tmp_path / "o")]
    assert main(["predict", str(run), str(two_people), *words]) == 0
    assert "two.mp4, face 2" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert len(rows) == 2
    assert rows[0]["ANG"] != rows[1]["ANG"]
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        "two_face1.mp4",
        "two_face2.mp4",
    ]
    clips_ = Predictor(load_run(run)).prepare_faces(two_people)
    sides = sorted(float(clip.record["face_box"][:, 0].mean()) for clip in clips_)
    assert sides[0] < 64 < 128 < sides[1]


def test_files_of_single_faces_replace_no_clip_and_no_other_file(
    run, two_people, media, tmp_path, capsys
):
    own = written(tmp_path / "two_face1.mp4", media.frames, media.pcm)
    before = own.read_bytes()
    words = ["predict", str(run), str(two_people), str(own), "--faces", "all"]
    assert main([*words, "--overlay", str(tmp_path)]) == 2
    assert "two_face1.mp4 is one of the clips and would be replaced" in capsys.readouterr().err
    assert own.read_bytes() == before
    assert main([*words, "--timeline", str(tmp_path / "t")]) == 2
    assert "two_face1.png would be written twice" in capsys.readouterr().err


def test_a_cut_file_is_used_as_far_as_it_goes(run, media, tmp_path, capsys):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (128, 128, 3), dtype=np.uint8)
    frames = [np.clip(frame.astype(int) + noise, 0, 255).astype(np.uint8) for frame in media.frames]
    path = tmp_path / "cut.flv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flv", rate=10)
        stream.height, stream.width, stream.pix_fmt = 128, 128, "yuv420p"
        stream.bit_rate = 4_000_000
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: int(0.7 * len(data))])
    assert main(["predict", str(run), str(path), "--overlay", str(tmp_path / "o")]) == 0
    assert "cut.flv: cut off after" in capsys.readouterr().err
    assert (tmp_path / "o/cut.mp4").stat().st_size > 1000


def test_a_class_that_is_not_predicted_is_explained_when_asked_for(run, clips, tmp_path, capsys):
    words = ["predict", str(run), str(clips[0]), "--relevance", str(tmp_path / "r.npz")]
    assert main(words) == 0
    with np.load(tmp_path / "r.npz") as file:
        predicted, maps = int(file["target"][0]), file["maps"]
    classes = load_run(run).classes
    index = (predicted + 1) % len(classes)
    other = classes[index]
    words += ["--target", other, "--overlay", str(tmp_path / "o")]
    assert main(words) == 0
    with np.load(tmp_path / "r.npz") as file:
        assert classes[int(file["target"][0])] == other
        assert np.abs(file["maps"] - maps).max() > 0.01
    plain = Predictor(load_run(run), method="tibav").predict(clips[0])
    asked = Predictor(load_run(run), method="tibav", target=index).predict(clips[0])
    np.testing.assert_array_equal(plain.probabilities, asked.probabilities)
    with np.load(tmp_path / "r.npz") as file:
        np.testing.assert_allclose(file["maps"][0], asked.maps, atol=1e-6)
    capsys.readouterr()
    assert main([*words[:-3], "JOY"]) == 2
    assert "--target is 'JOY'; expected one of ANG, DIS" in capsys.readouterr().err
    assert main([*words[:3], "--target", other]) == 2
    assert "--target belongs to" in capsys.readouterr().err


def test_a_face_that_is_there_for_too_little_of_the_time_is_not_used(
    heard_runs, run, media, tmp_path
):
    frames = [media.frames[i % len(media.frames)] if i % 12 < 3 else dark(1)[0] for i in range(60)]
    frames[-1] = media.frames[0]
    file = written(tmp_path / "flicker.mp4", frames, np.resize(media.pcm, 6 * RATE), fps=30)
    found = Predictor(load_run(heard_runs["n2"])).predict(file)
    assert [str(name) for name in found.used] == ["audio"]
    assert found.missing.startswith(("face found in", "no face found"))
    with pytest.raises(UnusableClip, match="face found"):
        Predictor(load_run(run)).predict(file)
