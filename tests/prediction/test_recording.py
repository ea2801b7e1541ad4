"""Recordings of any length: the timeline of their parts is that of the whole."""

import csv

import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.errors import UnusableClip
from aver_jax.prediction import job, recording
from aver_jax.prediction.predictor import Predictor
from aver_jax.prediction.recording import predict_recording
from aver_jax.prediction.timeline import timeline
from aver_jax.runs.run_folder import load_run
from data_prep.media import decode, recording_seconds, write_clip

RATE = 16_000


@pytest.fixture(scope="module")
def long_clip(clips, tmp_path_factory):
    """Eight seconds: a face and its sound, from the fifth second on without a face."""
    media = decode(clips[0])
    count = len(media.frames)
    frames = [media.frames[i % count] for i in range(50)]
    frames += [np.full_like(frames[0], 30)] * 30
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_clip(path, frames, 10, np.resize(media.pcm, 8 * RATE), RATE)
    return path


@pytest.fixture
def short_parts(monkeypatch):
    monkeypatch.setattr(recording, "PART_SECONDS", 2.0)
    monkeypatch.setattr(recording, "MAX_SECONDS", 5.0)
    monkeypatch.setattr(job, "MAX_SECONDS", 5.0)


@pytest.mark.usefixtures("short_parts")
def test_the_timeline_of_the_parts_is_that_of_the_whole(heard_runs, long_clip):
    predictor = Predictor(load_run(heard_runs["n2"]))
    whole = timeline(predictor, predictor.prepare(long_clip), window=0.8, hop=0.4)
    found = predict_recording(
        predictor, long_clip, recording_seconds(long_clip), window=0.8, hop=0.4
    )
    starts = found.line.spans[:, 0]
    assert (np.diff(starts) > 0).all()
    assert starts[-1] + 0.8 == pytest.approx(whole.spans[-1, 1], abs=0.2)
    # Before the face is lost: the same windows, of nearly the same crops.
    early = starts < 4.0
    assert early.sum() == (whole.spans[:, 0] < 4.0).sum() == 10
    np.testing.assert_allclose(starts[early], whole.spans[:10, 0], atol=0.05)
    assert all(len(used) == 2 for used in found.line.used[:10])
    difference = np.abs(found.line.probabilities[:10] - whole.probabilities[:10])
    assert np.median(difference) < 0.02
    # Afterwards the sound alone, and the shaded stretch says so.
    assert set(found.line.used[-5:]) == {("audio",)}
    assert found.unseen[0][0] == pytest.approx(5.0, abs=0.3)
    assert found.prediction.notes[-1].startswith("longer than 5 s: predicted from ")


@pytest.mark.usefixtures("short_parts")
def test_a_recording_has_a_row_and_a_timeline(run, long_clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data_prep.media.reader.MAX_SECONDS", 5.0)
    words = ["predict", str(run), str(long_clip), "--timeline", str(tmp_path / "t")]
    assert main([*words, "--window", "0.8", "--hop", "0.4"]) == 0
    told = capsys.readouterr()
    assert "long.mp4: longer than 5 s: predicted from" in told.err
    assert "no window of the timeline from" in told.err
    rows = list(csv.DictReader((tmp_path / "t/long.csv").read_text().splitlines()))
    assert len(rows) >= 10
    assert (tmp_path / "t/long.png").stat().st_size > 5_000
    assert main(["predict", str(run), str(long_clip)]) == 2
    assert "longer than 5 s" in capsys.readouterr().err
    assert main([*words, "--overlay", str(tmp_path / "o")]) == 2
    assert "--overlay is for shorter clips" in capsys.readouterr().err


@pytest.mark.usefixtures("short_parts")
def test_a_recording_of_sound_alone(heard_runs, clips, tmp_path):
    pcm = np.resize(decode(clips[0]).pcm, 7 * RATE)
    write_clip(tmp_path / "sound.mp4", [], 10, pcm, RATE)
    predictor = Predictor(load_run(heard_runs["voice"]))
    file = tmp_path / "sound.mp4"
    found = predict_recording(predictor, file, recording_seconds(file), window=1.0, hop=0.5)
    assert len(found.line.spans) in (13, 14)
    assert found.unseen == found.gaps == []
    whole = timeline(predictor, predictor.prepare(tmp_path / "sound.mp4"), window=1.0, hop=0.5)
    difference = np.abs(found.line.probabilities[:12] - whole.probabilities[:12])
    assert np.median(difference) < 0.02


@pytest.mark.usefixtures("short_parts")
def test_a_recording_without_anything_to_predict_says_why(run, tmp_path):
    write_clip(tmp_path / "wall.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 60, 10, np.zeros(0), 1)
    with pytest.raises(UnusableClip, match="no face found"):
        predict_recording(Predictor(load_run(run)), tmp_path / "wall.mp4", 6.0)
