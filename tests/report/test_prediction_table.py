"""The tables of predictions: modalities used, each branch's own, blanks where none is."""

import csv
import types
from pathlib import Path

import numpy as np

from aver_jax.report import prediction_table

CLASSES = ["ANG", "calm and quiet"]


def prediction(name, used=("video", "audio"), missing="", branches=None, best=0, partly=""):
    probabilities = np.float32([0.7, 0.3] if best == 0 else [0.3, 0.7])
    return types.SimpleNamespace(
        path=Path("clips") / name,
        probabilities=probabilities,
        branches=branches or {},
        used=used,
        missing=missing,
        partly=partly,
        faces=(8, 8) if "video" in used else (0, 0),
        face=0,
    )


BOTH = {"video": np.float32([0.9, 0.1]), "audio": np.float32([0.2, 0.8])}
FUSED = [
    prediction("a.mp4", branches=BOTH),
    prediction("quiet.mp4", ("video",), "no audio", {"video": BOTH["video"]}, best=1),
    prediction("b.mp3", ("audio",), "no video stream", {"audio": BOTH["audio"]}),
]


def test_branches_stand_beside_the_answer():
    head, *lines = prediction_table.table(FUSED, CLASSES).splitlines()
    assert head.split("  ")[0] == "clip"
    for word in ("video alone", "audio alone", "used", "face found in"):
        assert head.count(word) == 1
    column = head.index("video alone")
    assert [line[column:].split("  ")[0].strip() for line in lines] == ["ANG 0.900"] * 2 + ["-"]
    column = head.index("audio alone")
    shown = [line[column:].split("  ")[0].strip() for line in lines]
    assert shown == ["calm and quiet 0.800", "-", "calm and quiet 0.800"]
    column = head.index("used")
    shown = [line[column:].split("  ")[0].strip() for line in lines]
    assert shown == ["both", "video only (no audio)", "audio only (no video stream)"]
    assert [line.count("*") for line in lines] == [1, 1, 1]
    assert lines[0].endswith("8 of 8 frames")
    assert lines[2].endswith("-")


def test_a_model_of_one_modality_has_no_empty_columns():
    face = prediction_table.table([prediction("a.mp4", ("video",))], CLASSES)
    assert "used" not in face
    assert "alone" not in face
    assert "face found in" in face
    assert "face" not in prediction_table.table([prediction("a.mp3", ("audio",))], CLASSES)


def test_csv_has_every_branchs_probabilities_and_blanks():
    rows = list(csv.DictReader(prediction_table.probabilities_csv(FUSED, CLASSES).splitlines()))
    assert [row["prediction"] for row in rows] == ["ANG", "calm and quiet", "ANG"]
    assert [row["used"] for row in rows][1] == "video only (no audio)"
    assert float(rows[0]["audio_calm and quiet"]) == np.float32(0.8)
    assert rows[0]["audio_prediction"] == "calm and quiet"
    assert rows[1]["audio_prediction"] == rows[1]["audio_ANG"] == ""
    alone = prediction_table.probabilities_csv([prediction("a.mp4", ("video",))], CLASSES)
    assert alone.splitlines()[0] == "file,prediction,ANG,calm and quiet"


def test_what_is_there_for_a_smaller_part_is_told():
    clip = prediction("a.mp4", branches=BOTH, partly="sound in 1.0 of 6.0 s")
    assert "both (sound in 1.0 of 6.0 s)" in prediction_table.table([clip], CLASSES)
    assert "both (sound in 1.0 of 6.0 s)" in prediction_table.probabilities_csv([clip], CLASSES)
    alone = prediction("a.mp4", ("video",), partly="video in 0.5 of 6.0 s")
    assert prediction_table.used(alone) == "video (video in 0.5 of 6.0 s)"
