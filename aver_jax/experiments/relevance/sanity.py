"""Sanity checks of relevance: randomised parameters, randomised labels, another class.

Maps of the trained model are compared, by Spearman's correlation over the tubelets of a clip, with
those of the same class from a model whose parameters are drawn anew from the head down (Adebayo et
al. 2018), from a model trained on permuted labels, and with those of another class: the one that
the model finds next most likely.
"""

import argparse
import dataclasses
import json
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.evaluation.bootstrap import bootstrap_mean_interval
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.pages.relevance.sanity import ANOTHER_CLASS, PERMUTED_LABELS, build_page
from aver_jax.explanation.clip_maps import maps_of, on_grid, tubelet_grid
from aver_jax.explanation.metrics.randomisation import cascade, rank_correlation
from aver_jax.explanation.tested import open_tested
from aver_jax.input import Dataset
from aver_jax.models import init_variables
from aver_jax.relevance import methods_of
from aver_jax.runs.run_folder import LoadedRun, load_run
from aver_jax.runtime.atomic_files import check_writable, write_whole
from aver_jax.runtime.compilation_cache import use_compilation_cache

# Of the fresh parameters: not a seed that runs are trained with by default.
_SEED = 1_000_003


def run_experiment(args: argparse.Namespace, command: str) -> Page:
    """Returns the page of `aver experiments sanity`; measures the methods that are not yet.

    Raises:
      UserError: no such run or dataset, an unknown method, a run without video, a second run of
        another model, a folder with results of other settings.
    """
    use_compilation_cache()
    check_writable(args.out, "--out")
    tested = open_tested(args.run, args.checkpoint, args.data, args.clips)
    run, dataset, rows = tested.run, tested.dataset, tested.rows
    methods = methods_of(run.model) if args.methods in ("all", ("all",)) else args.methods
    unknown = [method for method in methods if method not in methods_of(run.model)]
    if unknown:
        raise UserError(
            f"method {unknown[0]!r}; expected some of {', '.join(methods_of(run.model))}"
        )
    other = None
    if args.random_labels_run is not None:
        other = load_run(args.random_labels_run)
        if other.model != run.model:
            raise UserError(f"{args.random_labels_run} is of another model than {args.run}")
    settings = {
        "dataset": dataset.fingerprint,
        "step": int(run.step),
        "rows": rows.tolist(),
        "random_labels": None if other is None else int(other.step),
    }
    stamp = args.out / "settings.json"
    if stamp.exists() and json.loads(stamp.read_text()) != settings:
        raise UserError(f"{args.out} holds results of other settings; choose another --out")
    write_whole(stamp, json.dumps(settings) + "\n")
    results = {}
    for method in tqdm(methods, unit="method", disable=None):
        stored = args.out / "parts" / f"{method}.json"
        if not stored.exists():
            found = _measured(run, other, dataset, rows, method, args.batch_size)
            write_whole(stored, json.dumps(found, indent=1) + "\n")
        results[method] = json.loads(stored.read_text())
    actors = len(set(dataset.index["actor"][rows].tolist()))
    return build_page(results, dataset.name, len(rows), actors, command)


def _measured(
    run: LoadedRun,
    other: LoadedRun | None,
    dataset: Dataset,
    rows: np.ndarray,
    method: str,
    batch_size: int,
) -> dict[str, Any]:
    """Returns check -> mean and interval of the correlation, and of its absolute value."""
    grid, actors = tubelet_grid(run), dataset.index["actor"][rows]

    def maps(of: LoadedRun, target) -> tuple[np.ndarray, np.ndarray]:
        found = maps_of(of, dataset, rows, method, target=target, batch_size=batch_size)
        return on_grid(found.maps, grid), found.logits

    own, logits = maps(run, "predicted")
    ranked = logits.argsort(axis=-1)
    predicted, next_one = np.int32(ranked[:, -1]), np.int32(ranked[:, -2])
    found = {}
    fresh = init_variables(run.model, jax.random.key(_SEED))
    for name, variables in cascade(run.variables, fresh):
        randomised = dataclasses.replace(run, variables=variables)
        found[name] = _summary(own, maps(randomised, predicted)[0], actors)
    if other is not None:
        found[PERMUTED_LABELS] = _summary(own, maps(other, predicted)[0], actors)
    found[ANOTHER_CLASS] = _summary(own, maps(run, next_one)[0], actors)
    return found


def _summary(own: np.ndarray, others: np.ndarray, actors: np.ndarray) -> dict[str, Any]:
    values = rank_correlation(own, others)
    known = ~np.isnan(values)
    summary: dict[str, Any] = {"clips": int(known.sum())}
    for name, numbers in (("signed", values[known]), ("absolute", np.abs(values[known]))):
        # JSON knows no NaN; an interval needs two actors.
        ends = bootstrap_mean_interval(numbers, actors[known]) if known.any() else (np.nan, np.nan)
        three = (float(numbers.mean()) if known.any() else np.nan, *ends)
        summary[name] = [None if np.isnan(x) else float(x) for x in three]
    return summary
