"""Copies are found however they were encoded or turned down; other clips are not."""

import cv2
import numpy as np
import pytest

from aver_jax.audit.duplicates import Hashes, duplicates, frame_bits, hashes_of, sound_bits
from aver_jax.input import open_dataset


@pytest.fixture(scope="module")
def dataset(synthetic_dataset):
    return open_dataset(synthetic_dataset)


@pytest.fixture(scope="module")
def hashes(dataset):
    return hashes_of(dataset, np.arange(len(dataset)))


def with_copy(hashes, frames, sound):
    return Hashes(
        np.concatenate([hashes.frames, frames[None]]),
        np.concatenate([hashes.sound, sound[None]]),
        np.append(hashes.heard, True),
    )


def test_different_clips_of_the_same_actors_are_no_copies(hashes):
    assert duplicates(hashes) == []


def test_an_exact_copy_is_found_by_both(hashes):
    copied = with_copy(hashes, hashes.frames[3], hashes.sound[3])
    assert duplicates(copied) == [(3, len(hashes.frames), "frames and sound")]


def test_a_reencoded_picture_and_a_sound_turned_down_are_found(dataset, hashes):
    record = dataset.source[5]
    places = np.linspace(0, len(record["frames"]) - 1, 5).round().astype(int)
    bits = []
    for place in places:
        image = cv2.imdecode(np.frombuffer(record["frames"][place], np.uint8), cv2.IMREAD_COLOR)
        again = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1].tobytes()
        bits.append(frame_bits(again, "a clip"))
    quiet = np.round(np.frombuffer(record["pcm"], np.int16) * 0.3).astype(np.int16)
    other = 1 - hashes.sound[5]
    found = with_copy(hashes, np.concatenate(bits), other)
    assert duplicates(found) == [(5, len(hashes.frames), "frames")]
    found = with_copy(hashes, 1 - hashes.frames[5], sound_bits(quiet))
    assert duplicates(found) == [(5, len(hashes.frames), "sound")]


def test_silence_is_no_copy_of_silence():
    assert sound_bits(np.zeros(32_000, np.int16)) is None
