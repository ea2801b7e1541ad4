"""A rendered corpus on disk: the same from the same seed, complete, and with its truth."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.corpora import crema_d, ravdess
from data_prep.errors import UserError
from data_prep.media import decode
from data_prep.synthetic import corpus
from data_prep.synthetic.corpus import render_corpus
from data_prep.synthetic.plan import Knobs
from data_prep.synthetic.truth import COLUMNS, read_truth

SMALL = {"size": 96, "fps": 10, "seconds": 1.0}
KNOBS = Knobs(fuzzy_face=0.25, fuzzy_voice=0.25, conflict=0.25, carrier="eyes+mouth", span=0.5)


def files(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def crema(tmp_path_factory):
    return render_corpus(tmp_path_factory.mktemp("a") / "corpus", 24, 2, 5, workers=1, knobs=KNOBS,
                         **SMALL)  # fmt: skip


RENDER_HASH = """
import hashlib, numpy as np
from data_prep.synthetic.clip import Clip, Format
from data_prep.synthetic.plan import Knobs, plan_corpus
digest = hashlib.sha256()
for plan in plan_corpus(24, 4, SEED)[::6]:
    clip = Clip(plan, SEED, Format(96, 10, 1.0), Knobs())
    digest.update(np.stack(list(clip.frames())).tobytes() + clip.pcm.tobytes())
print(digest.hexdigest())
"""


def rendered_hash(seed):
    code = RENDER_HASH.replace("SEED", str(seed))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_seed_fixes_every_pixel_and_sample_in_any_process():
    first = rendered_hash(5)
    assert first == rendered_hash(5)
    assert first != rendered_hash(6)


def test_the_number_of_workers_changes_nothing(crema, tmp_path):
    again = render_corpus(tmp_path / "again", 24, 2, 5, workers=2, knobs=KNOBS, **SMALL)
    assert files(crema) == files(again)
    one, two = read_truth(crema), read_truth(again)
    assert one.rows == two.rows
    for row in one.rows:
        assert np.array_equal(one.boxes[row["clip_id"]], two.boxes[row["clip_id"]])
        media, other = decode(crema / row["file"]), decode(again / row["file"])
        assert np.array_equal(media.pcm, other.pcm)
        assert np.array_equal(np.stack(media.frames), np.stack(other.frames))


def test_media_files_hold_what_the_truth_says(crema):
    truth = read_truth(crema)
    assert truth.regions == ("face", "eyes", "nose", "mouth")
    assert [tuple(row) for row in truth.rows] == [COLUMNS] * 24
    for row in truth.rows[::5]:
        media = decode(crema / row["file"])
        assert media.frames[0].shape == (96, 96, 3)
        assert len(media.timestamps) == int(row["frames"])
        assert len(media.pcm) / 16000 == pytest.approx(float(row["seconds"]), abs=0.1)
        assert truth.boxes[row["clip_id"]].shape == (int(row["frames"]), 4, 4)
        assert 0 <= float(row["label_start"]) < float(row["label_end"]) <= float(row["seconds"])


def test_the_truth_names_the_carriers_of_each_condition(crema):
    expected = {
        "clear": {"face+voice"},
        "fuzzy_face": {"voice"},
        "fuzzy_voice": {"face"},
        "conflict": {"face", "voice"},
    }
    seen = set()
    for row in read_truth(crema).rows:
        seen.add(row["condition"])
        assert row["modalities"] in expected[row["condition"]]
        assert row["regions"] == ("eyes+mouth" if "face" in row["modalities"] else "")
        if row["condition"] == "conflict":
            assert row["face_emotion"] != row["voice_emotion"]
        for modality in row["modalities"].split("+"):
            assert row[f"{modality}_emotion"] == row["label"]
    assert seen == expected.keys()


def test_the_readers_of_both_corpora_agree_with_the_truth(crema, tmp_path):
    rendered = {crema: crema_d.read_corpus}
    rendered[render_corpus(tmp_path / "r", 16, 2, 0, "ravdess", workers=1, **SMALL)] = (
        ravdess.read_corpus
    )
    for folder, read in rendered.items():
        rows = {row["clip_id"]: row for row in read_truth(folder).rows}
        read_back = read(folder)
        assert not read_back.skipped
        assert {job.clip_id for job in read_back.jobs} == rows.keys()
        for job in read_back.jobs:
            row = rows[job.clip_id]
            assert (job.label, job.actor, job.sex) == (row["label"], row["actor"], row["sex"])


def test_demographics_have_the_official_columns(crema):
    with open(crema / "VideoDemographics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["ActorID", "Age", "Sex", "Race", "Ethnicity"]
    assert [(row[0], row[2]) for row in rows[1:]] == [("1001", "Male"), ("1002", "Female")]


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not an empty folder, expected a new one"):
        render_corpus(tmp_path, 6, 1, 0, workers=1, **SMALL)
    assert files(tmp_path) == [(tmp_path / "mine.txt").relative_to(tmp_path)]


def test_a_failed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(corpus, "write_truth", full_disk)
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'out'}: no space"):
        render_corpus(tmp_path / "out", 2, 1, 0, workers=1, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [{"size": 64}, {"size": 161}, {"fps": 0}, {"seconds": 60}])
def test_formats_out_of_range_are_refused(tmp_path, arguments):
    with pytest.raises(UserError, match="expected"):
        render_corpus(tmp_path / "out", 6, 1, 0, workers=1, **(SMALL | arguments))


def test_reading_truth_that_is_not_there_says_what_makes_it(tmp_path):
    with pytest.raises(UserError, match="aver prepare synthetic"):
        read_truth(tmp_path)


def test_what_a_killed_run_left_goes_at_the_next_start_and_out_may_be_a_link(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f".real.partial-{process.pid}/VideoMP4").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "real")
    render_corpus(tmp_path / "out", 2, 1, 0, workers=1, **SMALL)
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file/out", "/proc/none/out"):
        with pytest.raises(UserError, match=f"cannot write {out}"):
            render_corpus(out, 2, 1, 0, workers=1, **SMALL)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="expected a new one"):
        render_corpus(tmp_path / "loop", 2, 1, 0, workers=1, **SMALL)


def _children(pid):
    return (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()


def _start_rendering(tmp_path):
    command = [sys.executable, "-m", "aver_jax", "prepare", "synthetic", "--out", tmp_path / "out"]
    flags = ["--clips", "480", "--size", "96", "--workers", "2"]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.partial-*/*/*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process, _children(process.pid)


def _wait_for_the_end_of(pids):
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


@needs_proc
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_stopped_run_takes_its_workers_along(tmp_path, number):
    process, children = _start_rendering(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert len(children) >= 2
    assert _wait_for_the_end_of(children) == []
    if number == signal.SIGTERM:
        assert "Traceback" not in errors
        assert list(tmp_path.iterdir()) == []


@needs_proc
def test_a_dead_worker_is_one_line(tmp_path):
    process, children = _start_rendering(tmp_path)
    for pid in children:
        if "spawn_main" in (Path("/proc") / pid / "cmdline").read_text():
            os.kill(int(pid), signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "a worker process died" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_the_command_renders_and_sums_up(tmp_path):
    flags = "--clips 2 --actors 1 --size 96 --fps 10 --seconds 1 --span 0.2:0.8 --workers 1"
    command = [sys.executable, "-m", "aver_jax", "prepare", "synthetic", "--out", "corpus"]
    done = subprocess.run(
        [*command, *flags.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("rendered 2 clips in ")
    assert done.stdout.strip().endswith("clips/s) to corpus")
    bad = subprocess.run(
        [*command, *flags.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert bad.returncode == 2
    assert "error: corpus exists and is not an empty folder" in bad.stderr
    assert "Traceback" not in bad.stderr
