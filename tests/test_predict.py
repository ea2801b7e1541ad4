"""Prediction: any media file in; tables, features and overlays out; reasons for what cannot be."""

import csv

import av
import jax
import numpy as np
import pytest

from aver_jax import load_run
from aver_jax.cli import main
from aver_jax.config import base_config
from aver_jax.models import init_variables
from aver_jax.predict import output_names
from aver_jax.predictor import Predictor
from aver_jax.runs import model_of, write_run

CLASSES = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of an untrained model: prediction must work, not be right."""
    config = base_config()
    config.data.update({"num_frames": 2, "image_size": 16, "protocol": "synthetic_fifths"})
    config.model.update(
        {"name": "timesformer", "width": 16, "depth": 1, "num_heads": 2, "patch_size": 8,
         "image_size": 16, "num_frames": 2}
    )  # fmt: skip
    model = model_of(config, len(CLASSES))
    variables = init_variables(model, jax.random.key(0))
    folder = tmp_path_factory.mktemp("predict") / "run"
    facts = {
        "classes": CLASSES,
        "dataset": {},
        "protocol": "synthetic_fifths",
        "modalities": ["frames"],
        "preparation": {"detector": "haar", "margin": 1.3, "size": 64},
    }
    write_run(folder, config, facts, variables)
    return folder


@pytest.fixture(scope="module")
def clips(synthetic_media):
    return sorted(synthetic_media.glob("VideoMP4/*.mp4"))[:2]


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


def test_a_clip_without_sound_is_enough_for_a_model_of_faces(run, clips, tmp_path):
    from data_prep.media import decode, write_clip

    frames = decode(clips[0]).frames
    silent = tmp_path / "silent.mp4"
    write_clip(silent, list(frames), 10, np.zeros(0, np.int16), 16_000)
    assert main(["predict", str(run), str(silent)]) == 0


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
