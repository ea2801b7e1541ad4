"""What the model reads in a face: eyes, nose and mouth occluded (du Toit 2022, Figure 16).

Every test clip is classified with each of the three parts and every combination of them occluded in
all frames. Where an emotion is lost, the part that is gone carried it.
"""

import argparse
import functools
import sys

import numpy as np
from tqdm import tqdm

from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.pages.provenance import settings_of
from aver_jax.experiments.pages.relevance.facial_parts import build_page
from aver_jax.experiments.relevance.parts import Parts
from aver_jax.explanation.clip_maps import clip_batches
from aver_jax.explanation.face_bands import CASES, FACE_SHARES, band_masks, words_of
from aver_jax.explanation.masked_forward import MaskedForward
from aver_jax.explanation.masking import occlude
from aver_jax.explanation.tested import check_baselines, open_tested
from aver_jax.runtime.compilation_cache import use_compilation_cache

# Clips on the contact sheet.
SHEET_CLIPS = 4


def run_experiment(args: argparse.Namespace, command: str) -> Page:
    """Classifies what is not done yet and returns the page.

    Args:
      args: the flags of `aver experiments parts`.
      command: the whole command, to be printed.

    Raises:
      UserError: a run, dataset, baseline or folder that cannot be used.
    """
    use_compilation_cache()
    check_baselines(args.baselines)
    tested = open_tested(args.run, args.checkpoint, args.data, args.clips)
    run, rows = tested.run, tested.rows
    data, margin = run.config.data, float(run.preparation["margin"])
    bands = band_masks(data.image_size, margin)
    # A band is a tubelet as wide as the crop and one row high.
    masks = np.broadcast_to(
        bands[None, :, None, :, None], (len(rows), len(CASES), data.num_frames, data.image_size, 1)
    )
    parts = Parts(args.out, settings_of(tested, "label") | {"bands": FACE_SHARES})
    batches = clip_batches(run, tested.dataset, rows, args.batch_size, keep=True)
    predicted = {}
    total = len(args.baselines) * len(rows) * len(CASES)
    with tqdm(total=total, desc="parts", unit=" clips", disable=not sys.stderr.isatty()) as bar:
        for baseline in args.baselines:
            if parts.read(baseline) is None:
                found = MaskedForward(run, baseline)(batches, masks, bar.update).argmax(-1)
                parts.write(baseline, _lines(rows, found))
            predicted[baseline] = _predictions(parts.read(baseline))
    first = next(iter(batches))
    middle = first["frames"][:SHEET_CLIPS, data.num_frames // 2][:, None]
    shown = [_occluded(middle, band, args.baselines[0]) for band in bands]
    return build_page(tested, predicted, np.stack(shown, 1), command)


def _occluded(frames: np.ndarray, band: np.ndarray, baseline: str) -> np.ndarray:
    """Returns frames uint8 [n,1,H,W,3] with the rows of a band occluded: [n,H,W,3]."""
    mask = np.broadcast_to(band[None, None, :, None], (len(frames), 1, len(band), 1))
    return np.asarray(functools.partial(occlude, baseline=baseline)(frames, mask))[:, 0]


def _lines(rows: np.ndarray, predicted: np.ndarray) -> list[list[object]]:
    return [
        ["row", *map(words_of, CASES)],
        *([row, *classes] for row, classes in zip(rows, predicted, strict=True)),
    ]


def _predictions(lines: list[dict[str, str]]) -> np.ndarray:
    """Returns the predicted classes, int [n,8], of a part's lines."""
    return np.array([[int(line[words_of(case)]) for case in CASES] for line in lines])
