"""`aver prepare`: exit codes, what is printed, light start, interruption."""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import av
import pytest

from data_prep import cli
from data_prep.errors import UserError
from data_prep.synthetic.truth import COLUMNS


def prepare(*words) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([str(word) for word in words]))


def skipped(folder) -> dict[str, str]:
    with (folder / "skipped.csv").open(newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def test_broken_clips_are_listed_each_with_its_reason_and_the_others_prepared(
    broken_folder, tmp_path, capfd
):
    code = prepare("crema_d", "--source", broken_folder, "--out", tmp_path / "d", "--size", 64)
    assert code == 3
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    reasons = skipped(tmp_path / "d")
    assert len(reasons) == len(set(reasons.values())) == 9
    for file, reason in reasons.items():
        assert f"{file}: {reason}" in printed.out
    with (tmp_path / "d/index.csv").open(newline="") as file:
        kept = [row["clip_id"] for row in csv.DictReader(file)]
    assert kept == ["1001_DFA_ANG_XX", "1001_IEO_ANG_XX"]  # the 4K clip and the good one
    assert "prepared 2 clips" in printed.out
    assert "skipped 9 clips" in printed.out
    assert "face found in 8 of 8 sampled frames: 1 clip\n" in printed.out


def test_nothing_usable_is_an_error_and_leaves_no_dataset(broken_folder, tmp_path):
    (tmp_path / "source").mkdir()
    shutil.copy(broken_folder / "1001_TIE_ANG_XX.mp4", tmp_path / "source")
    with pytest.raises(UserError, match="the only clip under"):
        prepare("crema_d", "--source", tmp_path / "source", "--out", tmp_path / "d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_ravdess_left_out_on_purpose_is_no_failure_and_truth_is_carried(face_clip, tmp_path):
    source = tmp_path / "source"
    (source / "Actor_03").mkdir(parents=True)
    shutil.copy(face_clip, source / "Actor_03/01-01-05-01-01-01-03.mp4")
    shutil.copy(face_clip, source / "Actor_03/02-01-05-01-01-01-03.mp4")
    (source / "truth.csv").write_text(",".join(COLUMNS) + "\n")
    (source / "truth.npz").touch()
    assert prepare("ravdess", "--source", source, "--out", tmp_path / "d", "--size", 32) == 0
    preparation = json.loads((tmp_path / "d/preparation.json").read_text())
    assert preparation["dataset"] == "synthetic"
    assert preparation["size"] == 32
    assert len(preparation["classes"]) == 8
    assert (tmp_path / "d/truth.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert (tmp_path / "d/truth.npz").exists()
    assert list(skipped(tmp_path / "d")) == ["Actor_03/02-01-05-01-01-01-03.mp4"]


def test_a_folder_with_labels_is_prepared_and_a_missing_file_listed(face_clip, tmp_path):
    shutil.copy(face_clip, tmp_path / "me.mp4")
    (tmp_path / "labels.csv").write_text("file,label\nme.mp4,happy\ngone.mp4,sad\n")
    words = ("--source", tmp_path, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "d")
    assert prepare("folder", *words, "--workers", 1) == 3
    assert skipped(tmp_path / "d") == {"gone.mp4": "no such file"}


def test_a_cut_clip_is_taken_when_asked_for_and_what_was_done_is_told(
    broken_folder, tmp_path, capsys
):
    cut = "1001_ITS_ANG_XX.flv"
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(broken_folder / "1001_IEO_ANG_XX.mp4", source)
    remuxed(source / "1001_IEO_ANG_XX.mp4", source / cut)
    data = (source / cut).read_bytes()
    (source / cut).write_bytes(data[: int(0.8 * len(data))])
    words = ("--source", source, "--size", 32, "--workers", 1)
    assert prepare("crema_d", *words, "--out", tmp_path / "a") == 3
    assert skipped(tmp_path / "a")[cut].startswith("truncated: cut off after 0.")
    capsys.readouterr()
    assert prepare("crema_d", *words, "--out", tmp_path / "b", "--keep-truncated") == 0
    told = capsys.readouterr().out
    assert f"note: 1 clip, such as {cut}: cut off after 0." in told


def remuxed(path, out):
    """The packets of a file in another container."""
    with av.open(str(path)) as old, av.open(str(out), "w") as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)


@pytest.mark.parametrize(
    "words",
    [
        ("--workers", "0"),
        ("--size", "8"),
        ("--margin", "0.5"),
        ("--detector", "x"),
        ("--stream", "x:1"),
        ("--stream", "v"),
    ],
)
def test_impossible_flags_are_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare("crema_d", "--source", "s", "--out", "o", *words)
    assert words[0] in capsys.readouterr().err


def test_help_loads_no_media_library():
    code = (
        "import sys, argparse; from data_prep import cli; p = argparse.ArgumentParser();"
        "cli.add_arguments(p); p.format_help();"
        "print({'cv2', 'av', 'numpy', 'tensorflow_datasets', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_a_stopped_run_leaves_no_half_dataset_and_can_start_again(face_clip, tmp_path, number):
    source, home = tmp_path / "source", tmp_path / "home"
    source.mkdir()
    home.mkdir()
    for i in range(400):
        (source / f"{1000 + i}_DFA_ANG_XX.mp4").symlink_to(face_clip)
    code = (
        # A shell's background jobs inherit a SIGINT that is ignored, and so would this process.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from test_cli import prepare\n"
        "try: prepare('crema_d', '--source', sys.argv[2], '--out', sys.argv[3])\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    env = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", code, "", str(source), str(home / "d")]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(home.glob(".d.partial-*/*.array_record*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert not (home / "d").exists()
    if number == signal.SIGKILL:
        for file in list(source.iterdir())[3:]:
            file.unlink()
        assert prepare("crema_d", "--source", source, "--out", home / "d") == 0
        assert [path.name for path in home.iterdir()] == ["d"]
    else:
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert list(home.iterdir()) == []


@pytest.mark.parametrize("inside", [".", "clips"])
def test_overwriting_never_takes_the_source_or_the_labels_along(tmp_path, inside):
    out = tmp_path / "d"
    (out / "clips").mkdir(parents=True)
    for name in ("preparation.json", "dataset_info.json"):
        (out / name).touch()
    (out / "clips/me.mp4").write_text("mine")
    (tmp_path / "link").symlink_to(out / inside)
    words = ["--out", out, "--overwrite"]
    with pytest.raises(UserError, match=r"lies in .* choose another --out"):
        prepare("crema_d", "--source", tmp_path / "link", *words)
    labels = ["--labels", out / "clips/me.mp4"]
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match=r"me\.mp4 lies in"):
        prepare("folder", "--source", tmp_path / "elsewhere", *labels, *words)
    assert (out / "clips/me.mp4").read_text() == "mine"


def test_strange_names_and_things_that_are_no_files_are_listed(face_clip, tmp_path, capfd):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(face_clip, source / "1001_DFA_ANG_XX.mp4")
    shutil.copy(face_clip, os.fsencode(source) + b"/bad\xffname.flv")
    shutil.copy(face_clip, source / "two\nlines.mp4")
    (source / "1001_IEO_ANG_XX.mp4").mkdir()
    (source / "1001_TIE_ANG_XX.mp4").symlink_to(source / "gone.mp4")
    (source / "1001_IOM_ANG_XX.mp4").symlink_to(source / "1001_IOM_ANG_XX.mp4")
    os.mkfifo(source / "1001_IWW_ANG_XX.mp4")
    words = ("--out", tmp_path / "d", "--size", 32, "--workers", 1)
    assert prepare("crema_d", "--source", source, *words) == 3
    reasons = skipped(tmp_path / "d")
    assert reasons["bad\\udcffname.flv"] == "its name is not UTF-8 text: rename it"
    assert "does not follow" in reasons["two\nlines.mp4"]
    assert reasons["1001_IEO_ANG_XX.mp4"] == "a folder, not a media file"
    assert reasons["1001_TIE_ANG_XX.mp4"] == "a link to a file that is not there"
    assert "symbolic links" in reasons["1001_IOM_ANG_XX.mp4"]
    assert reasons["1001_IWW_ANG_XX.mp4"] == "not a regular file"
    printed = capfd.readouterr().out
    assert "  two\\nlines.mp4: file name" in printed
    assert "  bad\\udcffname.flv: its name" in printed


def test_all_reasons_are_printed_when_no_clip_can_be_prepared(tmp_path, capfd):
    for i in range(30):
        (tmp_path / f"holiday{i:02d}.mp4").touch()
    with pytest.raises(UserError, match="none of 30 clips"):
        prepare("crema_d", "--source", tmp_path, "--out", tmp_path / "d")
    printed = capfd.readouterr().out
    assert all(f"holiday{i:02d}.mp4: file name" in printed for i in range(30))
