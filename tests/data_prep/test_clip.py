"""One clip prepared: the record's fields and what is required."""

import cv2
import numpy as np
import pytest

from data_prep.clip import Job, Preparation, prepare_clip, sampled_faces
from data_prep.errors import MissingModality

PREPARATION = Preparation(size=48)


def test_record_holds_crops_times_boxes_and_sound(face_clip):
    record = prepare_clip(Job(face_clip, "c1", "ANG", "1001", vote_face="ANG:DIS"), PREPARATION)
    assert len(record["frames"]) == 12
    image = cv2.imdecode(np.frombuffer(record["frames"][0], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (48, 48, 3)
    blue, _, red = image[24, 24].astype(int)
    assert red > blue + 30, "skin is reddish: the JPEG's channels are in order"
    np.testing.assert_allclose(record["timestamps"], np.arange(12) / 25, atol=1e-4)
    assert record["face_box"].shape == (12, 4)
    assert record["face_box"].dtype == np.float32
    assert record["face_found"].all()
    assert sampled_faces(record) == (8, 8)
    np.testing.assert_array_equal(record["source_size"], [120, 160])
    pcm = np.frombuffer(record["pcm"], "<i2")
    assert len(pcm) / 16_000 == pytest.approx(0.48, abs=0.07)
    assert np.abs(pcm).max() > 6_000
    assert (record["clip_id"], record["label"], record["vote_face"]) == ("c1", "ANG", "ANG:DIS")
    assert (record["sex"], record["age"]) == ("", -1)


def test_the_crop_follows_the_face(face_clip):
    box = prepare_clip(Job(face_clip), PREPARATION)["face_box"]
    centres = (box[:, 0] + box[:, 2]) / 2
    np.testing.assert_allclose(centres, 74 + np.arange(12), atol=3)


def test_a_clip_is_prepared_the_same_every_time(face_clip):
    one, other = (prepare_clip(Job(face_clip), PREPARATION) for _ in range(2))
    assert one["frames"] == other["frames"]
    assert one["pcm"] == other["pcm"]


def test_a_model_of_one_modality_does_without_the_other(broken_folder):
    silent = Job(broken_folder / "1001_MTI_ANG_XX.mp4")
    assert prepare_clip(silent, PREPARATION, ("video",))["pcm"] == b""
    with pytest.raises(MissingModality, match="no audio"):
        prepare_clip(silent, PREPARATION)
    sound_only = prepare_clip(Job(broken_folder / "1001_TAI_ANG_XX.mp4"), PREPARATION, ("audio",))
    assert sound_only["frames"] == []
    assert sound_only["face_box"].shape == (0, 4)
    assert len(sound_only["pcm"]) > 15_000


def test_a_wall_has_no_face(broken_folder):
    with pytest.raises(MissingModality, match=r"no face found \(for 0.25 s"):
        prepare_clip(Job(broken_folder / "1001_IWL_ANG_XX.mp4"), PREPARATION)


def test_preparation_survives_its_json():
    preparation = Preparation("mtcnn", 1.5, 112)
    entries = {"dataset": "folder", "classes": ["a"], **preparation.to_json()}
    assert Preparation.from_json(entries) == preparation
    assert entries["sample_rate"] == 16_000


def test_real_clips_have_a_face_in_every_sampled_frame(real_clips):
    for path in sorted((real_clips / "clips").glob("*.flv")):
        assert sampled_faces(prepare_clip(Job(path), Preparation())) == (8, 8)
