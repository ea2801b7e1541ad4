"""The ground truth of every rendered clip: a table, and the boxes of the facial parts."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.errors import UserError

TABLE, BOXES = "truth.csv", "truth.npz"
COLUMNS = (
    "clip_id", "file", "actor", "sex", "age", "label", "intensity", "strength", "sentence",
    "condition", "modalities", "face_emotion", "voice_emotion", "face_strength", "voice_strength",
    "regions", "label_start", "label_end", "voice_start", "voice_end", "seconds", "fps",
    "frames", "width", "height",
)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """The truth of a rendered corpus.

    Attributes:
      rows: one dict per clip, keys `COLUMNS`, values as text, in order of `clip_id`.
      regions: names of the boxes' second axis: ("face", "eyes", "nose", "mouth").
      boxes: clip_id -> float32 [F, 4, 4], x0 y0 x1 y1 in source pixels.
    """

    rows: list[dict[str, str]]
    regions: tuple[str, ...]
    boxes: dict[str, np.ndarray]


def write_truth(folder: Path, rows: list[dict], regions: tuple[str, ...], boxes: list) -> None:
    """Writes `truth.csv` and `truth.npz` (clip_id, first row, regions, boxes) to `folder`."""
    with open(folder / TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    counts = [len(b) for b in boxes]
    np.savez_compressed(
        folder / BOXES,
        clip_id=np.array([row["clip_id"] for row in rows]),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        regions=np.array(regions),
        boxes=np.concatenate(boxes).astype(np.float32),
    )


def read_truth(folder: str | Path) -> Truth:
    """Reads what `write_truth` wrote; UserError if it is not there."""
    folder = Path(folder)
    for name in (TABLE, BOXES):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: no {name} found; expected a corpus made by `aver prepare synthetic`"
            )
    with open(folder / TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with np.load(folder / BOXES) as stored:
        first, boxes = stored["first"], stored["boxes"]
        names, regions = stored["clip_id"].tolist(), tuple(stored["regions"].tolist())
    by_clip = {n: boxes[a:b] for n, a, b in zip(names, first[:-1], first[1:], strict=True)}
    return Truth(rows, regions, by_clip)
