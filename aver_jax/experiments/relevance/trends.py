"""Where and when each emotion is seen: mean relevance (du Toit 2022, Figures 13, 14, 31 and 32).

Of the test clips that are classified correctly. Every clip's map is scaled to 0..1 over its whole
volume, so that each clip counts the same; then the maps of an emotion's clips are averaged.
"""

import argparse
import sys

import numpy as np
from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.pages.provenance import settings_of
from aver_jax.experiments.pages.relevance.trends import Trend, build_page
from aver_jax.experiments.relevance.parts import Parts
from aver_jax.explanation.clip_maps import CONTROLS, maps_of, on_grid, tubelet_grid
from aver_jax.explanation.tested import Tested, checked_methods, open_tested
from aver_jax.runtime.compilation_cache import use_compilation_cache


def run_experiment(args: argparse.Namespace, command: str) -> Page:
    """Explains what is not done yet and returns the page.

    Args:
      args: the flags of `aver experiments trends`.
      command: the whole command, to be printed.

    Raises:
      UserError: a run, dataset, method or folder that cannot be used, or no clip that is
        classified correctly.
    """
    use_compilation_cache()
    tested = open_tested(args.run, args.checkpoint, args.data, args.clips)
    # Controls know no class: an emotion has no trend in them.
    methods = [m for m in checked_methods(tested.run, args.methods) if m not in CONTROLS]
    if not methods:
        raise UserError("--methods has controls alone; name a method that explains the model")
    grid = tubelet_grid(tested.run)
    parts = Parts(args.out, settings_of(tested, "predicted") | {"grid": grid})
    trends = {}
    for method in tqdm(
        methods, desc="trends", unit=" methods", disable=not sys.stderr.isatty(), leave=False
    ):
        if parts.read(method) is None:
            parts.write(method, _lines(tested, method, grid, args.batch_size))
        trends[method] = _trend(parts.read(method), len(tested.rows), grid)
    correct = next(iter(trends.values())).predicted == tested.labels
    if not correct.any():
        raise UserError(f"none of {len(correct)} test clips is classified correctly")
    return build_page(tested, trends, command)


def scaled(maps: np.ndarray) -> np.ndarray:
    """Returns maps [n,T,h,w], each min-max scaled to 0..1 over its volume; a constant one is 0."""
    low = maps.min(axis=(1, 2, 3), keepdims=True)
    high = maps.max(axis=(1, 2, 3), keepdims=True)
    varies = high - low > 1e-6 * np.abs(high)
    return np.where(varies, (maps - low) / np.where(varies, high - low, 1), 0)


def _lines(tested: Tested, method: str, grid, batch_size: int) -> list[list[object]]:
    """Returns a line per clip and frame: the predicted class and the scaled map of the frame."""
    found = maps_of(tested.run, tested.dataset, tested.rows, method, batch_size=batch_size)
    maps = scaled(on_grid(found.maps, grid))
    rows: list[list[object]] = [["row", "frame", "predicted", "map"]]
    for row, logits, clip in zip(tested.rows, found.logits, maps, strict=True):
        for frame, values in enumerate(clip):
            text = " ".join(f"{v:.4g}" for v in values.ravel())
            rows.append([row, frame, logits.argmax(), text])
    return rows


def _trend(lines: list[dict[str, str]], clips: int, grid) -> Trend:
    maps = np.array([line["map"].split() for line in lines], np.float32).reshape(clips, *grid)
    predicted = np.array([line["predicted"] for line in lines], np.int32)[:: grid[0]]
    return Trend(maps, predicted)
