"""Clips that are there twice: perceptual hashes of frames, fingerprints of sound."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np

from aver_jax.input import Dataset, decode_image

# A clip is a copy where its frames differ in at most this share of bits, or its sound. Of all pairs
# of 480 rendered clips the most alike differ in 5% of the bits of frames and 31% of the sound's.
PICTURE_BITS, SOUND_BITS = 0.03, 0.25
_FRAMES = 5
_BANDS, _TIMES = 17, 33
_WINDOW, _RATE = 1024, 16_000


class Hashes(NamedTuple):
    """Bits of n clips, 0 or 1: frames uint8 [n, 320], sound uint8 [n, 512]; heard: bool [n],
    whether a clip has enough sound."""

    frames: np.ndarray
    sound: np.ndarray
    heard: np.ndarray


def hashes_of(dataset: Dataset, rows: np.ndarray) -> Hashes:
    """Returns the hashes of some rows of a dataset."""

    def both(row: int):
        record = dataset.source[int(row)]
        places = np.linspace(0, len(record["frames"]) - 1, _FRAMES).round().astype(int)
        bits = [frame_bits(record["frames"][place], record["clip_id"].decode()) for place in places]
        return np.concatenate(bits), sound_bits(np.frombuffer(record["pcm"], np.int16))

    with ThreadPoolExecutor(2) as pool:
        frames, sounds = zip(*pool.map(both, rows), strict=True)
    silent = np.zeros((_TIMES - 1) * (_BANDS - 1), np.uint8)
    return Hashes(
        np.stack(frames),
        np.stack([silent if bits is None else bits for bits in sounds]),
        np.array([bits is not None for bits in sounds]),
    )


def frame_bits(jpeg: bytes, clip: str) -> np.ndarray:
    """Returns the difference hash of a picture, uint8 [64]: is each of 8 x 9 cells the brighter?

    Args:
      jpeg: the picture.
      clip: its clip's name, for the error where it is damaged.
    """
    gray = decode_image(jpeg, f"a frame of clip {clip}", cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (small[:, 1:] > small[:, :-1]).astype(np.uint8).ravel()


def sound_bits(pcm: np.ndarray) -> np.ndarray | None:
    """Returns the fingerprint of a sound, uint8 [512], or None where it is too short or silent.

    Signs of differences of band energies along time and frequency (Haitsma & Kalker 2002), which
    no gain changes; the clip's length is divided into 33 blocks.

    Args:
      pcm: int16 [S], 16 kHz.
    """
    sound = pcm.astype(np.float32)
    if len(sound) < _TIMES * _WINDOW // 4 or not np.any(np.abs(sound) > 8):
        return None
    starts = np.linspace(0, max(0, len(sound) - _WINDOW), _TIMES).astype(int)
    blocks = np.pad(sound, (0, _WINDOW))[starts[:, None] + np.arange(_WINDOW)]
    power = np.abs(np.fft.rfft(blocks * np.hanning(_WINDOW))) ** 2
    edges = np.geomspace(150, 4000, _BANDS + 1) / _RATE * _WINDOW
    edges = np.unique(edges.round().astype(int))
    bands = np.log(np.add.reduceat(power, edges, axis=1)[:, :_BANDS] + 1e-3)
    differences = np.diff(np.diff(bands, axis=1), axis=0)
    bits = np.zeros((_TIMES - 1, _BANDS - 1), np.uint8)
    bits[:, : differences.shape[1]] = differences > 0
    return bits.ravel()


def duplicates(hashes: Hashes) -> list[tuple[int, int, str]]:
    """Returns (first, second, what) of clips that are alike: "frames", "sound", "frames and sound".

    Args:
      hashes: of n clips.
    """
    frames = distances(hashes.frames) <= PICTURE_BITS
    sound = distances(hashes.sound) <= SOUND_BITS
    sound &= hashes.heard[:, None] & hashes.heard[None]
    found = []
    for a, b in np.argwhere(np.triu(frames | sound, 1)).tolist():
        words = [word for word, alike in (("frames", frames), ("sound", sound)) if alike[a, b]]
        found.append((a, b, " and ".join(words)))
    return found


def distances(bits: np.ndarray) -> np.ndarray:
    """Returns the share of bits in which each pair of rows of uint8 [n, K] differs, [n, n]."""
    signs = 2.0 * bits.astype(np.float32) - 1
    return (1 - signs @ signs.T / bits.shape[1]) / 2


def described(
    found: list[tuple[int, int, str]], dataset: Dataset, rows: np.ndarray, part_of: dict[int, str]
) -> list[dict[str, Any]]:
    """Returns pairs as JSON types: clips, parts (row -> name, in `part_of`), and what is alike.

    Those between two parts come first: they are the ones that harm a score.
    """
    names = dataset.index["clip_id"]
    pairs = [
        {
            "clips": [str(names[rows[a]]), str(names[rows[b]])],
            "parts": [part_of[int(rows[a])], part_of[int(rows[b])]],
            "alike": what,
        }
        for a, b, what in found
    ]
    return sorted(pairs, key=lambda pair: len(set(pair["parts"])) == 1)
