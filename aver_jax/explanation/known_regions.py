"""Where the label of a rendered clip lies in what the model sees: patches and frames.

Boxes of the truth are in pixels of the rendered frame; the model sees a crop around the detected
face. Both are known for every frame, so that a box is carried into the crop without error.
"""

from collections.abc import Sequence

import numpy as np

from aver_jax.errors import UserError
from aver_jax.explanation.metrics.localisation import patch_cover
from aver_jax.input import ClipShape, Dataset
from aver_jax.input.clips import clip_window, frames_within
from aver_jax.input.known import known_part
from data_prep.faces.boxes import crop_square
from data_prep.synthetic.truth import Truth

# A patch belongs to a region that covers this share of it.
LEAST_COVER = 0.25


def seen_frames(record, shape: ClipShape) -> np.ndarray:
    """Returns which frames of a record evaluation shows to a model, int [T]."""
    known = known_part(record, shape.modalities)
    chosen = frames_within(known, *clip_window(known, shape.max_seconds), shape.num_frames)
    return np.flatnonzero(np.asarray(record["face_found"], bool))[chosen]


def seen_boxes(
    dataset: Dataset, rows: Sequence[int], shape: ClipShape, truth: Truth, region: str
) -> np.ndarray:
    """Returns the boxes of a facial part in the crops, as shares of their side; float64 [n,T,4].

    Raises:
      UserError: the corpus has no boxes of the part.
    """
    if region not in truth.regions:
        raise UserError(f"region {region!r}; the truth has {', '.join(truth.regions)}")
    margin, part = dataset.preparation["margin"], truth.regions.index(region)
    found = []
    for row in rows:
        record = dataset.source[int(row)]
        size = np.asarray(record["source_size"])
        own = []
        for frame in seen_frames(record, shape):
            square = crop_square((size[1], size[0]), record["face_box"][frame], margin)
            left, top, side = square
            box = truth.boxes[dataset.index["clip_id"][row]][frame, part]
            own.append((box - (left, top, left, top)) / side)
        found.append(own)
    return np.asarray(found, np.float64)


def region_patches(boxes: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Returns the patches that boxes [n,T,4] cover by `LEAST_COVER` or more, bool [n,T,h,w]."""
    return patch_cover(boxes, grid) >= LEAST_COVER


def frames_in_span(
    dataset: Dataset, rows: Sequence[int], shape: ClipShape, span: tuple[float, float]
) -> np.ndarray:
    """Returns which of the frames lie in a part of the clip, bool [n,T].

    Args:
      dataset, rows, shape: as in `seen_boxes`.
      span: (start, stop) as shares of the clip's length.
    """
    found = []
    for row in rows:
        record = dataset.source[int(row)]
        times = np.asarray(record["timestamps"], np.float64)
        length = times[-1] + times[-1] / max(1, len(times) - 1)  # from 0 to the last frame's end
        middle = times[seen_frames(record, shape)] / length + 0.5 / len(times)
        found.append((middle >= span[0]) & (middle < span[1]))
    return np.asarray(found)
