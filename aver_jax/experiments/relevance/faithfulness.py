"""Whether the model depends on what each method marks, beside controls that know nothing of it.

Deletion and insertion, comprehensiveness and sufficiency, ROAD, max-sensitivity and the Gini index
(`explanation.metrics`), for every method; a table ranks the methods.
"""

import argparse
import sys

import numpy as np
from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.pages.provenance import settings_of
from aver_jax.experiments.pages.relevance.faithfulness import build_page
from aver_jax.experiments.relevance.parts import Parts
from aver_jax.explanation.clip_maps import (
    CONTROLS,
    clip_batches,
    maps_of,
    on_grid,
    time_shuffled,
    tubelet_grid,
)
from aver_jax.explanation.masked_forward import MaskedForward
from aver_jax.explanation.masking import BASELINES
from aver_jax.explanation.metrics import curves, road
from aver_jax.explanation.metrics.sensitivity import max_sensitivity
from aver_jax.explanation.metrics.sparseness import gini
from aver_jax.explanation.ranking import ORDERS, tubelet_masks
from aver_jax.explanation.tested import checked_methods, open_tested
from aver_jax.relevance import methods_of
from aver_jax.runtime.compilation_cache import use_compilation_cache

SHUFFLED = "time_shuffled:"


def run_experiment(args: argparse.Namespace, command: str) -> Page:
    """Measures what is not measured yet and returns the page.

    Args:
      args: the flags of `aver experiments faithfulness`.
      command: the whole command, to be printed.

    Raises:
      UserError: a run, dataset, method, baseline or folder that cannot be used.
    """
    use_compilation_cache()
    if len(args.baselines) < 2 or set(args.baselines) - set(BASELINES):
        raise UserError(
            f"--baselines is {','.join(args.baselines)}; "
            f"give at least two of {', '.join(BASELINES)}"
        )
    tested = open_tested(args.run, args.checkpoint, args.data, args.clips)
    run, rows = tested.run, tested.rows
    grid = tubelet_grid(run)
    methods = _methods(run, args.methods)
    settings = settings_of(tested, args.target)
    parts = Parts(args.out, settings | {"grid": grid, "baselines": args.baselines})
    batches = clip_batches(run, tested.dataset, rows, args.batch_size, keep=True)
    forwards = {b: MaskedForward(run, b) for b in args.baselines}
    imputed = MaskedForward(run, road.imputed_by)
    passes = 2 * len(curves.SHARES) * len(args.baselines) + len(ORDERS) * len(road.SHARES)
    todo = [method for method in methods if parts.read(_part(method)) is None]
    with tqdm(
        total=len(methods) * passes * len(rows),
        initial=(len(methods) - len(todo)) * passes * len(rows),
        desc="faithfulness",
        unit=" clips",
        disable=not sys.stderr.isatty(),
    ) as bar:
        for method in todo:
            plain = method.removeprefix(SHUFFLED)
            found = maps_of(
                run, tested.dataset, rows, plain, target=args.target, batch_size=args.batch_size
            )
            maps = on_grid(found.maps, grid)
            if method != plain:
                maps = time_shuffled(maps, rows)
            columns = {"row": rows, "gini": gini(maps)}
            most = tubelet_masks(maps, curves.SHARES, "most")
            both = np.concatenate([most, ~most], axis=1)
            for baseline, forward in forwards.items():
                logits = forward(batches, both, bar.update)
                values = curves.class_probability(logits, found.target)
                names = [
                    f"{k} {baseline} {s:g}" for k in ("deleted", "kept") for s in curves.SHARES
                ]
                columns |= dict(zip(names, values.T, strict=True))
            removed = [tubelet_masks(maps, road.SHARES, order) for order in ORDERS]
            right = imputed(batches, np.concatenate(removed, 1), bar.update).argmax(-1)
            right = right == tested.labels[:, None]
            names = [f"road {order} {share:g}" for order in ORDERS for share in road.SHARES]
            columns |= dict(zip(names, right.T.astype(int), strict=True))
            if method == plain and method not in CONTROLS:
                columns["sensitivity"] = max_sensitivity(run, batches, method, found.target)
                columns["ms"] = np.full(len(rows), found.ms_per_clip)
            lines = zip(*(c.tolist() for c in columns.values()), strict=True)
            parts.write(_part(method), [list(columns), *map(list, lines)])
    measured = {method: _columns(parts.read(_part(method))) for method in methods}
    return build_page(tested, measured, args.baselines, args.target, command)


def _methods(run, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the methods and controls; without a choice, the model's first is shuffled in time."""
    given = checked_methods(run, asked, SHUFFLED)
    if any(name.startswith(SHUFFLED) for name in given):
        return given
    first = next((name for name in given if name not in CONTROLS), methods_of(run.model)[0])
    return (*given, f"{SHUFFLED}{first}")


def _part(method: str) -> str:
    return method.replace(":", "_of_")


def _columns(part) -> dict[str, np.ndarray]:
    return {name: np.array([float(line[name]) for line in part]) for name in part[0]}
