"""Prediction: any media file in; tables, features and overlays out; reasons for what cannot be."""

import csv
import dataclasses
import re

import av
import jax
import numpy as np
import pytest

from aver_jax import load_run
from aver_jax.cli import main
from aver_jax.errors import UnusableClip
from aver_jax.prediction.arguments import output_names
from aver_jax.prediction.predictor import Predictor
from data_prep.media import decode, write_clip

CLASSES = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]


@pytest.fixture(scope="module")
def partial_clips(tmp_path_factory, clips):
    """A clip, and others without sound, without a face, without a picture, without anything."""
    folder = tmp_path_factory.mktemp("partial")
    media = decode(clips[0])
    wall = [np.full((96, 96, 3), 90 + i, np.uint8) for i in range(len(media.frames))]
    for name, frames, pcm in (
        ("both", media.frames, media.pcm),
        ("silent", media.frames, media.pcm[:0]),
        ("wall", wall, media.pcm),
        ("sound", [], media.pcm),
        ("nothing", wall, media.pcm[:0]),
    ):
        write_clip(folder / f"{name}.mp4", list(frames), 10, pcm, 16_000)
    return folder


def test_everything_that_was_asked_for_is_written(run, clips, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a film")
    code = main(
        ["predict", str(run), *map(str, clips), str(broken), "--csv", str(tmp_path / "p.csv"),
         "--features", str(tmp_path / "f.npz"), "--relevance", str(tmp_path / "r.npz"),
         "--overlay", str(tmp_path / "overlays")]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 3
    assert [line for line in err.splitlines() if "broken.mp4" in line]
    assert "Traceback" not in err
    for clip in clips:
        assert clip.name in out
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [str(clip) for clip in clips]
    for row in rows:
        values = [float(row[name]) for name in CLASSES]
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == CLASSES[int(np.argmax(values))]
    with np.load(tmp_path / "f.npz") as features:
        assert features["features"].shape == (2, 16)
    with np.load(tmp_path / "r.npz") as relevance:
        assert relevance["maps"].shape == (2, 2, 2, 2)
        assert relevance["frames"].shape == (2, 2, 16, 16, 3)
        assert (np.diff(relevance["frame_times"]) > 0).all()


def test_an_overlay_keeps_the_clips_times_and_sound(run, clips, tmp_path):
    assert main(["predict", str(run), str(clips[0]), "--overlay", str(tmp_path)]) == 0
    with av.open(str(clips[0])) as source, av.open(str(tmp_path / clips[0].name)) as overlay:
        times = [f.time for f in source.decode(video=0)]
        written = [f.time for f in overlay.decode(video=0)]
    assert np.allclose(np.diff(written), np.diff(times), atol=1e-3)

    def loudness(path):
        with av.open(str(path)) as container:
            return np.concatenate(
                [f.to_ndarray().astype(np.float64).ravel() for f in container.decode(audio=0)]
            ).std()

    assert loudness(tmp_path / clips[0].name) == pytest.approx(loudness(clips[0]), rel=0.2)


def test_a_clip_without_sound_is_enough_for_a_model_of_faces(run, partial_clips):
    assert main(["predict", str(run), str(partial_clips / "silent.mp4")]) == 0


def test_a_fused_model_does_with_what_a_clip_has(heard_runs, partial_clips, tmp_path, capsys):
    files = [partial_clips / f"{n}.mp4" for n in ("both", "silent", "wall", "sound", "nothing")]
    outputs = {"--csv": "p.csv", "--features": "f.npz", "--relevance": "r.npz", "--overlay": "o"}
    words = [word for flag, name in outputs.items() for word in (flag, str(tmp_path / name))]
    code = main(["predict", str(heard_runs["n2"]), *map(str, files), *words])
    out, err = capsys.readouterr()
    assert code == 3
    assert re.search(r"nothing.mp4: no face found \(.*\), and no audio", err)
    assert "(grad_cam, space_time)" in out
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["used"] for row in rows] == [
        "both",
        "video only (no audio)",
        "audio only (no face found)",
        "audio only (no video stream)",
    ]
    for row in rows:
        assert row["used"] in out
    # With one modality the prediction is its branch's.
    assert float(rows[1]["video_ANG"]) == pytest.approx(float(rows[1]["ANG"]), rel=1e-5)
    assert float(rows[2]["audio_ANG"]) == pytest.approx(float(rows[2]["ANG"]), rel=1e-5)
    assert (rows[1]["audio_ANG"], rows[2]["video_ANG"]) == ("", "")
    written = sorted(path.name for path in (tmp_path / "o").iterdir())
    expected = ["both.mp4", "both_sound.png", "silent.mp4", "sound_sound.png", "wall_sound.png"]
    assert written == expected
    with np.load(tmp_path / "r.npz") as relevance:
        maps, sound = relevance["maps"], relevance["sound_maps"]
        assert maps.shape[:2] == (4, 2)
        known = ~np.isnan(maps).all((1, 2, 3))
        np.testing.assert_array_equal(known, [True, True, False, False])
        assert sound.shape == (4, 257, relevance["sound_times"].shape[1])
        assert np.isnan(sound[1]).all()
        peaks = relevance["maps_peak"], relevance["sound_peak"]
        np.testing.assert_array_equal(np.isnan(peaks), [[0, 0, 1, 1], [0, 1, 0, 0]])
        padding = relevance["sound_padding"]
        assert ((padding[[0, 2, 3]] >= 0) & (padding[[0, 2, 3]] < 1)).all()
        np.testing.assert_allclose(relevance["sound_frequencies"][[0, -1]], [0, 8000])
        np.testing.assert_allclose(np.diff(relevance["sound_times"][0]), 0.004, atol=1e-6)
    with np.load(tmp_path / "f.npz") as features:
        assert features["features"].shape == (4, 16)
        np.testing.assert_array_equal(np.isnan(features["features"][:, 0]), [0, 1, 1, 1])
        np.testing.assert_array_equal(np.isnan(features["features_audio"][:, 0]), [0, 1, 0, 0])


@pytest.fixture(scope="module")
def uneven_clips(tmp_path_factory, clips):
    """Longer than the 2 s a model hears: "film" has .5 s of sound, "speech" .5 s of picture."""
    folder = tmp_path_factory.mktemp("uneven")
    media = decode(clips[0])
    frames = [media.frames[i % len(media.frames)] for i in range(50)]
    pcm = np.resize(media.pcm, 5 * 16_000)
    write_clip(folder / "film.mp4", frames, 10, pcm[:8000], 16_000)
    write_clip(folder / "speech.mp4", frames[:5], 10, pcm, 16_000)
    return folder


def test_sound_and_picture_outside_the_middle_are_heard_and_seen(
    heard_runs, uneven_clips, tmp_path, capsys
):
    files = [uneven_clips / f"{name}.mp4" for name in ("film", "speech")]
    words = ["--csv", str(tmp_path / "p.csv"), "--overlay", str(tmp_path / "o")]
    words += ["--relevance", str(tmp_path / "r.npz")]
    assert main(["predict", str(heard_runs["n2"]), *map(str, files), *words]) == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["used"] for row in rows] == [
        "both (audio in 0.5 of 2.0 s)",
        "both",
    ]
    assert len(list((tmp_path / "o").iterdir())) == 4
    told = capsys.readouterr().err
    assert "film.mp4: predicted from 0.0 to 2.0 s of 5.0 s, where its face is" in told
    assert "speech.mp4: predicted from 0.0 to 0.5 s of 5.1 s, where its face is" in told


@pytest.mark.parametrize("network", ["n0", "n2"])
def test_sound_that_ends_before_the_picture_begins_is_missing(heard_runs, clips, network):
    predictor = Predictor(load_run(heard_runs[network]), temperature=3.0, method="grad_cam")
    clip = predictor.prepare(clips[0])
    count = len(clip.record["timestamps"])
    late = clip.record | {
        "timestamps": np.float32(3 + np.arange(count) / 10),
        "pcm": clip.record["pcm"][:3200],
    }
    clip = dataclasses.replace(clip, record=late)
    if network == "n0":
        with pytest.raises(UnusableClip, match="no audio with the video; this mrpn needs"):
            predictor.predict_clip(clip)
        return
    found = predictor.predict_clip(clip)
    assert (found.used, found.missing, found.audio_map) == (
        ("video",),
        "no audio with the video",
        None,
    )
    assert found.window[1] == pytest.approx(3 + count / 10, abs=0.01)
    # One branch alone: a temperature fitted to fused logits does not apply.
    np.testing.assert_array_equal(found.probabilities, found.branches["video"])


def test_the_answer_to_a_whole_clip_is_the_models_own(heard_runs, clips):
    """The logits of the model, called by hand on what was decoded by hand."""
    from aver_jax.frontend import evaluation_inputs
    from aver_jax.input.clips import ClipShape, clip_arrays
    from data_prep.clip import Job, Preparation, prepare_clip

    loaded = load_run(heard_runs["n2"])
    found = Predictor(loaded, temperature=2.0).predict(clips[0])
    record = prepare_clip(Job(clips[0], clip_id="x"), Preparation(size=64))
    batch = clip_arrays([record], [(0.0, 1.0)], ClipShape(2, 16, 2.0, ("frames", "audio")))
    inputs = jax.jit(lambda batch: evaluation_inputs(loaded.config, batch))(batch)
    logits, taps = jax.jit(loaded.model.apply)(loaded.variables, inputs)
    np.testing.assert_allclose(found.probabilities, jax.nn.softmax(logits[0] / 2), atol=1e-5)
    video = jax.nn.softmax(taps["logits_video"][0])
    np.testing.assert_allclose(found.branches["video"], video, atol=1e-5)


def test_n0_needs_face_and_sound(heard_runs, partial_clips, tmp_path, capsys):
    silent, both = (str(partial_clips / f"{name}.mp4") for name in ("silent", "both"))
    assert main(["predict", str(heard_runs["n0"]), silent]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].endswith(
        "no audio (no audio stream); this mrpn needs the video and the audio of a clip"
    )
    assert len(lines) == 2
    table = tmp_path / "p.csv"
    assert main(["predict", str(heard_runs["n0"]), silent, both, "--csv", str(table)]) == 3
    assert table.read_text().splitlines()[0] == ",".join(["file", "prediction", *CLASSES, "used"])


def test_a_model_of_voices_reads_sound_files(heard_runs, real_clips, tmp_path, capsys):
    files = sorted((real_clips / "audio").glob("*.mp3"))[:2]
    words = ["--overlay", str(tmp_path / "o"), "--relevance", str(tmp_path / "r.npz")]
    assert main(["predict", str(heard_runs["voice"]), *map(str, files), *words]) == 0
    assert "face" not in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        f"{file.stem}_sound.png" for file in files
    ]
    with np.load(tmp_path / "r.npz") as relevance:
        assert "maps" not in relevance
        largest = np.nanmax(relevance["sound_maps"], axis=(1, 2))
        # Scaled with the silence after the end, which is cut off.
        assert ((largest > 0) == (relevance["sound_peak"] > 0)).all()
        assert (largest <= 1).all()


def test_a_timeline_is_drawn_and_written(heard_runs, clips, tmp_path):
    words = ["--timeline", str(tmp_path), "--window", "0.5", "--hop", "0.1"]
    assert main(["predict", str(heard_runs["n2"]), str(clips[0]), *words]) == 0
    rows = list(csv.DictReader((tmp_path / f"{clips[0].stem}.csv").read_text().splitlines()))
    assert len(rows) in (6, 7)
    for row in rows:
        assert sum(float(row[f"video_{name}"]) for name in CLASSES) == pytest.approx(1, abs=1e-4)
    assert (tmp_path / f"{clips[0].stem}.png").stat().st_size > 10_000


def test_a_timeline_slides_over_all_of_an_uneven_clip(heard_runs, uneven_clips, tmp_path, capsys):
    words = ["--timeline", str(tmp_path), "--window", "0.5", "--hop", "0.25"]
    film, speech = (str(uneven_clips / f"{name}.mp4") for name in ("film", "speech"))
    assert main(["predict", str(heard_runs["n2"]), film, speech, *words]) == 0
    assert "no window" not in capsys.readouterr().err
    for name, alone in (("film", "video"), ("speech", "audio")):
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        assert {row["used"] for row in rows} == {"both", alone}
        assert float(rows[-1]["stop"]) == pytest.approx(5, abs=0.1)
    assert main(["predict", str(heard_runs["n0"]), film, *words]) == 0
    err = capsys.readouterr().err
    assert "film.mp4: no window of the timeline from 0.5 to 5.0 s: no audio" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "tibav"], "--method tibav does not explain the mrpn of"),
        (["--window", "1"], "--window and --hop belong to --timeline DIR"),
        (["--csv", "{out}/x.csv", "--timeline", "{out}"], "would be written twice"),
    ],
)
def test_flags_that_do_not_fit_are_one_clear_line(heard_runs, tmp_path, words, message, capsys):
    words = [word.format(out=tmp_path) for word in words]
    assert main(["predict", str(heard_runs["n2"]), "x.mp4", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_network_without_attention_offers_no_tibav(heard_runs, capsys):
    assert main(["predict", str(heard_runs["n2"]), "x.mp4", "--method", "tibav"]) == 2
    assert "it offers grad_cam, grad_cam_plus_plus" in capsys.readouterr().err


def test_prediction_sees_what_evaluation_sees(run, synthetic_dataset, synthetic_media):
    # The run's preparation has crops of 64 pixels, the dataset of 32; both end at 16.
    from aver_jax.input import open_dataset
    from aver_jax.input.clips import ClipShape, clip_arrays

    dataset = open_dataset(synthetic_dataset)
    clip = str(dataset.index["clip_id"][0])
    seen = Predictor(load_run(run)).predict(synthetic_media / "VideoMP4" / f"{clip}.mp4")
    stored = clip_arrays([dataset.source[0]], [(0.0, 1.0)], ClipShape(2, 16))
    np.testing.assert_allclose(seen.frame_times, stored["frame_times"][0], atol=1e-6)
    assert np.abs(seen.frames.astype(int) - stored["frames"][0]).mean() < 4


def test_nothing_usable_is_an_error(run, tmp_path, capsys):
    assert main(["predict", str(run), str(tmp_path / "missing.mp4")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "missing.mp4" in lines[0]
    assert lines[-1].startswith("aver predict: error: none of 1 clip could")


def test_temperature_must_be_positive(run, clips, capsys):
    assert main(["predict", str(run), str(clips[0]), "--temperature", "0"]) == 2
    assert "--temperature" in capsys.readouterr().err


def test_clips_of_one_name_have_overlays_of_their_own(tmp_path):
    paths = [tmp_path / "a/x.mp4", tmp_path / "b/x.avi", tmp_path / "c/y.mp4"]
    assert list(output_names(paths).values()) == ["x", "x-2", "y"]


def test_real_clips_are_predicted(run, real_clips, tmp_path):
    files = sorted((real_clips / "clips").glob("*.flv"))
    words = [str(run), *map(str, files), "--overlay", str(tmp_path), "--csv", str(tmp_path / "p")]
    assert main(["predict", *words]) == 0
    assert sorted(p.stem for p in tmp_path.glob("*.mp4")) == [p.stem for p in files]


@pytest.mark.parametrize("flag", ["--csv", "--overlay"])
def test_a_clip_is_never_replaced_by_an_output(run, clips, flag, capsys):
    before = clips[0].read_bytes()
    target = clips[0] if flag == "--csv" else clips[0].parent
    assert main(["predict", str(run), str(clips[0]), flag, str(target)]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert clips[0].read_bytes() == before


def test_an_output_that_cannot_be_written_is_one_line(run, clips, tmp_path, capsys):
    (file := tmp_path / "file").write_text("")
    assert main(["predict", str(run), str(clips[0]), "--overlay", str(file)]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("aver predict: error:")
