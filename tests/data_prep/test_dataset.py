"""The dataset on disk: what is read back, in which order, and never half of it."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from data_prep.clip import Job, Preparation
from data_prep.dataset import DatasetWriter, write_dataset
from data_prep.errors import UserError
from data_prep.output import check_out

CLASSES = ("ANG", "DIS")


def record(i: int, frames: int = 3) -> dict:
    rng = np.random.default_rng(i)
    return {
        "frames": [rng.bytes(50 + i) for _ in range(frames)],
        "timestamps": (np.arange(frames) / 30 + 0.027).astype(np.float32),
        "face_box": rng.random((frames, 4), dtype=np.float32),
        "face_found": rng.random(frames) > 0.5,
        "source_size": np.array([360, 480], np.int32),
        "pcm": rng.bytes(64),
        "label": CLASSES[i % 2],
        "actor": f"{1001 + i}",
        "clip_id": f"clip{i:02d}",
        "intensity": "XX",
        "sentence": "DFA",
        "sex": "",
        "age": -1 if i else 51,
        "vote_voice": "",
        "vote_face": "ANG:DIS",
        "vote_multimodal": "DIS",
    }


def rows(file) -> list[dict]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def read_back(folder):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder).as_data_source(split="all")


def test_records_come_back_unchanged_in_the_order_of_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.dataset._SHARD_CLIPS", 3)
    records = [record(i) for i in (4, 1, 3, 0, 2, 6, 5)]
    with DatasetWriter(tmp_path / "d", "crema_d", CLASSES, {"size": 224}) as writer:
        for one in records:
            writer.add(one)
        writer.close(skipped=[("a.mp4", "no face")])
    source = read_back(tmp_path / "d")
    index = rows(tmp_path / "d/index.csv")
    assert len(source) == len(index) == 7
    assert len(list((tmp_path / "d").glob("*.array_record*"))) == 3
    for i, (one, line) in enumerate(zip(records, index, strict=True)):
        found = source[i]
        assert (line["row"], line["clip_id"]) == (str(i), found["clip_id"].decode())
        assert CLASSES[found["label"]] == one["label"] == line["label"]
        for name in ("timestamps", "face_box", "face_found", "source_size"):
            np.testing.assert_array_equal(found[name], one[name])
            assert found[name].dtype == one[name].dtype
        assert list(found["frames"]) == one["frames"]
        assert found["pcm"] == one["pcm"]
        assert found["age"] == one["age"]
        for name in ("actor", "intensity", "sentence", "sex", "vote_voice", "vote_face"):
            assert found[name].decode() == one[name]
    line = index[3]
    assert (line["age"], line["frames"], line["seconds"]) == ("51", "3", "0.100")
    assert (line["voice_vote"], line["face_vote"]) == ("", "ANG:DIS")
    assert index[0]["age"] == ""
    assert rows(tmp_path / "d/skipped.csv") == [{"file": "a.mp4", "reason": "no face"}]
    preparation = json.loads((tmp_path / "d/preparation.json").read_text())
    assert preparation == {"dataset": "crema_d", "classes": list(CLASSES), "size": 224}


def test_writing_and_reading_never_imports_tensorflow(tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); import test_dataset as t;"
        "w = t.DatasetWriter(sys.argv[1], 'crema_d', t.CLASSES, {});"
        "w.__enter__(); w.add(t.record(0)); w.close();"
        "assert t.read_back(sys.argv[1])[0]['pcm'];"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
    )
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", code, str(tmp_path / "d"), here]
    subprocess.run(command, check=True, timeout=60)


def test_an_interruption_leaves_nothing_behind(tmp_path):
    def interrupted():
        with DatasetWriter(tmp_path / "d", "crema_d", CLASSES, {}) as writer:
            writer.add(record(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    stale, alive = (tmp_path / f".d.partial-{pid}" for pid in (process.pid, os.getppid()))
    stale.mkdir()
    alive.mkdir()
    with DatasetWriter(tmp_path / "d", "crema_d", CLASSES, {}) as writer:
        writer.add(record(0))
        writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "d"]


def test_an_existing_dataset_is_replaced_only_when_asked(tmp_path):
    def write(i, **options):
        with DatasetWriter(tmp_path / "d", "crema_d", CLASSES, {}, **options) as writer:
            writer.add(record(i))
            writer.close()

    write(0)
    with pytest.raises(UserError, match="--overwrite replaces it"):
        write(1)
    assert rows(tmp_path / "d/index.csv")[0]["clip_id"] == "clip00"
    write(1, overwrite=True)
    assert rows(tmp_path / "d/index.csv")[0]["clip_id"] == "clip01"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_folder_of_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(UserError, match="holds other files"),
        DatasetWriter(tmp_path, "crema_d", CLASSES, {}, overwrite=True),
    ):
        pass
    with (
        pytest.raises(UserError, match="is a file"),
        DatasetWriter(tmp_path / "thesis.tex", "crema_d", CLASSES, {}),
    ):
        pass
    assert (tmp_path / "thesis.tex").exists()


class _Deadly:
    """Ends the process that unpickles it, as a fault in a codec would."""

    name = "deadly.mp4"

    def __reduce__(self):
        return os._exit, (1,)

    def is_relative_to(self, other):
        return False

    def __str__(self):
        return self.name


def test_workers_keep_the_order_and_a_dying_one_costs_only_its_clip(tmp_path, face_clip):
    jobs = [Job(face_clip, f"c{i}", "ANG") for i in range(5)]
    with_deadly = [*jobs[:2], Job(_Deadly(), "deadly", "ANG"), *jobs[2:]]
    preparation = Preparation(size=32)
    summary = write_dataset(
        tmp_path / "d", "folder", CLASSES, with_deadly, preparation, workers=2, progress=False
    )
    found = [line["clip_id"] for line in rows(tmp_path / "d/index.csv")]
    assert found == ["c0", "c1", "c2", "c3", "c4"]
    assert summary.prepared == 5
    assert summary.skipped == [("deadly.mp4", "its worker process died (out of memory?)")]

    write_dataset(tmp_path / "here", "folder", CLASSES, jobs, preparation, workers=0)
    there, here = (read_back(tmp_path / name) for name in ("d", "here"))
    for i in range(5):
        assert there[i]["frames"] == here[i]["frames"]
        assert there[i]["pcm"] == here[i]["pcm"]


def write(out, **options):
    with DatasetWriter(out, "crema_d", CLASSES, {}, **options) as writer:
        writer.add(record(0))
        writer.close()


@pytest.mark.parametrize("name", ["notes.txt", "clips/a.mp4", "index.csv.bak"])
def test_a_dataset_with_other_files_in_it_is_not_overwritten(tmp_path, name):
    write(tmp_path / "d")
    check_out(tmp_path / "d", True)
    (tmp_path / "d" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "d" / name).touch()
    with pytest.raises(UserError, match=r"holds '(notes|clips|index).* move it away"):
        write(tmp_path / "d", overwrite=True)


def test_out_may_be_a_link_which_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "d").symlink_to(tmp_path / "disk/d")
    write(tmp_path / "d")
    write(tmp_path / "d", overwrite=True)
    assert (tmp_path / "d").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["d"]
    assert (tmp_path / "disk/d/index.csv").is_file()


def test_a_place_that_cannot_be_written_is_named_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for out, reason in ((tmp_path / "file/d", "is a file"), ("/proc/none/d", "cannot write")):
        with pytest.raises(UserError, match=f"{out}.*{reason}|{reason}.*{out}"):
            write(out)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "loop")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[2]); import test_dataset as t\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "  with t.DatasetWriter(sys.argv[1], 'crema_d', t.CLASSES, {}) as w:\n"
        "    for i in range(400): w.add({**t.record(i), 'pcm': t.np.random.bytes(9_000)})\n"
        "    w.close()\n"
        "except t.UserError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "d"), os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"cannot write {tmp_path / 'd'}: ")
    assert "File too large" in done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
