"""Accuracy with patches and frames occluded by relevance (du Toit 2022, Figures 11 and 12).

Of every clip, the most (or least) relevant 0 to 50% of all patches and, crossed with them, the 0
to 4 most (or least) relevant whole frames are occluded. A method that has found what the model
uses lowers the accuracy fast in the first case and slowly in the second.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.pages.provenance import settings_of
from aver_jax.experiments.pages.relevance.occlusion import build_page
from aver_jax.experiments.relevance.parts import Parts
from aver_jax.explanation.clip_maps import clip_batches, maps_of, on_grid, tubelet_grid
from aver_jax.explanation.masked_forward import MaskedForward
from aver_jax.explanation.ranking import ORDERS, frame_masks, tubelet_masks
from aver_jax.explanation.tested import check_baselines, checked_methods, open_tested
from aver_jax.runtime.compilation_cache import use_compilation_cache

PATCHES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
FRAMES = (0, 1, 2, 3, 4)


def run_experiment(args: argparse.Namespace, command: str) -> Page:
    """Occludes what is not done yet and returns the page.

    Args:
      args: the flags of `aver experiments occlusion`.
      command: the whole command, to be printed.

    Raises:
      UserError: a run, dataset, method, baseline or folder that cannot be used.
    """
    use_compilation_cache()
    tested = open_tested(args.run, args.checkpoint, args.data, args.clips)
    run, rows = tested.run, tested.rows
    grid = tubelet_grid(run)
    methods = checked_methods(run, args.methods)
    check_baselines(args.baselines)
    frames = tuple(count for count in FRAMES if count < grid[0])
    parts = Parts(args.out, settings_of(tested, args.target) | {"grid": grid})
    batches = clip_batches(run, tested.dataset, rows, args.batch_size, keep=True)
    forwards = {}
    cells = len(ORDERS) * len(PATCHES) * len(frames)
    todo = [(m, b) for m in methods for b in args.baselines if parts.read(f"{m}_{b}") is None]
    total = len(methods) * len(args.baselines) * cells * len(rows)
    with tqdm(
        total=total,
        initial=total - len(todo) * cells * len(rows),
        desc="occlusion",
        unit=" clips",
        disable=not sys.stderr.isatty(),
    ) as bar:
        for method in dict.fromkeys(m for m, _ in todo):
            found = maps_of(
                run, tested.dataset, rows, method, target=args.target, batch_size=args.batch_size
            )
            masks = cell_masks(on_grid(found.maps, grid), PATCHES, frames)
            for baseline in (b for m, b in todo if m == method):
                compiled = baseline in forwards
                forward = forwards.setdefault(baseline, MaskedForward(run, baseline))
                began = time.perf_counter()
                predicted = forward(batches, masks, bar.update).argmax(-1)
                # The first call compiles.
                rate = cells * len(rows) / (time.perf_counter() - began) if compiled else None
                parts.write(f"{method}_{baseline}", _lines(predicted, rows, frames, rate))
    predicted = {
        (m, b): _predictions(parts.read(f"{m}_{b}"), rows, len(frames))
        for m in methods
        for b in args.baselines
    }
    rates = [
        float(line["clips_per_s"])
        for m in methods
        for b in args.baselines
        for line in parts.read(f"{m}_{b}")[:1]
        if line["clips_per_s"]
    ]
    return build_page(
        tested,
        predicted,
        PATCHES,
        frames,
        args.target,
        float(np.median(rates or [np.nan])),
        command,
    )


def cell_masks(maps: np.ndarray, patches: Sequence[float], frames: Sequence[int]) -> np.ndarray:
    """Returns the masks of all cells, bool [n,2PF,T,h,w]: order, share of patches, frames.

    The order is that of `ranking.ORDERS`; the frames vary fastest.

    Args:
      maps: float [n,T,h,w].
      patches: P shares of the clip's patches.
      frames: F numbers of whole frames.
    """
    both = []
    for order in ORDERS:
        of_patches = tubelet_masks(maps, tuple(patches), order)
        of_frames = frame_masks(maps, tuple(frames), order)
        crossed = of_patches[:, :, None] | of_frames[:, None]
        both.append(crossed.reshape(len(maps), -1, *maps.shape[1:]))
    return np.concatenate(both, axis=1)


def _lines(predicted, rows, frames, rate) -> list[list[object]]:
    """Returns a part: a line per cell, a column per clip with the predicted class."""
    lines: list[list[object]] = [["order", "patches", "frames", "clips_per_s", *map(str, rows)]]
    cells = [(o, p, f) for o in ORDERS for p in PATCHES for f in frames]
    for cell, classes in zip(cells, predicted.T, strict=True):
        lines.append([*cell, rate, *map(int, classes)])
    return lines


def _predictions(part, rows, num_frames) -> np.ndarray:
    """Returns the predicted classes of a part, int [n,2,P,F]."""
    table = np.array([[int(line[str(row)]) for line in part] for row in rows])
    return table.reshape(len(rows), len(ORDERS), len(PATCHES), num_frames)
