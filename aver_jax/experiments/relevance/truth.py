"""Do methods find what is known to carry the label? Corpora of known truth, and scores of maps.

For every corpus a small TimeSformer is trained, and its correctly classified test clips are
explained by every method. Beside them stands what the model loses without the region: a method
cannot find what the model does not use.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from aver_jax.errors import UserError
from aver_jax.evaluation.bootstrap import bootstrap_mean_interval
from aver_jax.evaluation.evaluator import collect_logits
from aver_jax.evaluation.forward import compiled_forward
from aver_jax.experiments.pages.page import Page
from aver_jax.experiments.pages.relevance.truth import Examples, build_page
from aver_jax.experiments.relevance.truth_corpora import CORPORA, trained_on
from aver_jax.explanation.clip_maps import CONTROLS, clip_batches, maps_of, on_grid, tubelet_grid
from aver_jax.explanation.known_regions import frames_in_span, region_patches, seen_boxes
from aver_jax.explanation.masking import occlude
from aver_jax.explanation.metrics.localisation import Localisation, localisation
from aver_jax.input import ClipShape, Dataset, open_dataset
from aver_jax.relevance import methods_of
from aver_jax.runs.run_folder import LoadedRun, load_run, split_of_run
from aver_jax.runtime.atomic_files import write_whole
from aver_jax.runtime.compilation_cache import use_compilation_cache
from aver_jax.runtime.data_parallel import make_mesh
from data_prep.synthetic.truth import read_truth

SCORES = ("pointing", "mass", "auc")
# The result of a corpus; its format is told by `_scored`.
_RESULT = "scores.json"


def run_experiment(args: argparse.Namespace, command: str) -> Page:
    """Returns the page of `aver experiments truth`; does what is not done yet.

    Raises:
      UserError: an unknown corpus or method; a model that got no clip right.
    """
    use_compilation_cache()
    corpora = tuple(CORPORA) if args.corpora == "all" else args.corpora
    unknown = [name for name in corpora if name not in CORPORA]
    if unknown:
        raise UserError(f"corpus {unknown[0]!r}; expected some of {', '.join(CORPORA)}")
    results, examples = {}, {}
    for name in corpora:
        folder = args.out / name
        print(f"corpus {name}: {folder}", file=sys.stderr, flush=True)
        data, run = trained_on(name, folder, args.clips, args.actors, args.epochs)
        stored = folder / _RESULT
        result = json.loads(stored.read_text()) if stored.exists() else None
        wanted = None if args.methods in ("all", ("all",)) else args.methods
        if result is None or not set(wanted or ()) <= set(result["methods"]):
            result = _scored(name, open_dataset(data), load_run(run), wanted, folder)
            write_whole(stored, json.dumps(result, indent=1) + "\n")
        results[name] = result
        with np.load(folder / "examples.npz") as file:
            examples[name] = Examples(**{key: file[key] for key in file.files})
    return build_page(results, examples, command)


def _scored(
    name: str, dataset: Dataset, run: LoadedRun, wanted: tuple[str, ...] | None, folder: Path
) -> dict[str, Any]:
    """Returns all that is measured on a corpus, JSON types; writes `examples.npz`."""
    methods = wanted or methods_of(run.model)
    for method in methods:
        if method not in methods_of(run.model):
            raise UserError(
                f"method {method!r}; expected some of {', '.join(methods_of(run.model))}"
            )
    corpus = CORPORA[name]
    parts = split_of_run(run.config, run.dataset, dataset)
    rows, labels = np.asarray(parts.test), parts.labels[parts.test]
    shape, grid = ClipShape.from_config(run.config.data, grid=0), tubelet_grid(run)
    boxes = None
    if corpus.region:
        boxes = seen_boxes(dataset, rows, shape, read_truth(dataset.path), corpus.region)
        inside = region_patches(boxes, grid[1:])
    else:
        inside = frames_in_span(dataset, rows, shape, corpus.span)
    given = {
        "as it is": _accuracy(run, dataset, rows, labels, None),
        f"without the {corpus.where}": _accuracy(run, dataset, rows, labels, inside),
        f"the {corpus.where} alone": _accuracy(run, dataset, rows, labels, ~inside),
    }
    scored, shown, times, right = {}, {}, {}, None
    for method in tqdm((*methods, *CONTROLS), unit="method", desc=name, disable=None):
        found = maps_of(run, dataset, rows, method)
        right = found.logits.argmax(-1) == labels
        if not right.any():
            raise UserError(
                f"the model of {name} got no test clip right; raise --epochs or --clips"
            )
        maps = on_grid(found.maps, grid)[right]
        times[method] = found.ms_per_clip
        shown[method] = maps[0]
        flat = maps if corpus.region else maps.sum(axis=(2, 3))
        scored[method] = localisation(flat, inside[right])
    actors = dataset.index["actor"][rows][right]
    first = rows[right][0]
    batch = next(iter(clip_batches(run, dataset, [first], 1)))
    kept = {
        "names": np.array(list(shown)),
        "maps": np.stack(list(shown.values())),
        "frames": np.asarray(batch["frames"][0]),
        "boxes": np.zeros((0, 4)) if boxes is None else boxes[right][0],
        "inside": inside[right][0],
    }
    partial = folder / "examples.partial.npz"
    np.savez_compressed(partial, **kept)
    partial.replace(folder / "examples.npz")
    return {
        "where": corpus.where,
        "time": not corpus.region,
        "test_clips": len(rows),
        "right": int(right.sum()),
        "actors": len(set(actors.tolist())),
        "area": float(next(iter(scored.values())).area.mean()),
        "accuracy": given,
        "methods": {m: _summary(s, actors, times[m]) for m, s in scored.items()},
    }


def _summary(scores: Localisation, actors: np.ndarray, ms: float) -> dict[str, Any]:
    """Returns mean and 95% interval (actors resampled) of each score."""
    found: dict[str, Any] = {"ms_per_clip": None if np.isnan(ms) else ms}
    for name in SCORES:
        values = getattr(scores, name)
        known = ~np.isnan(values)
        low, high = bootstrap_mean_interval(values[known], actors[known])
        found[name] = {"value": float(values[known].mean()), "low": low, "high": high}
    return found


def _accuracy(
    run: LoadedRun,
    dataset: Dataset,
    rows: np.ndarray,
    labels: np.ndarray,
    hidden: np.ndarray | None,
) -> float:
    """Returns the accuracy with some patches, bool [n,T,h,w], or frames, bool [n,T], hidden.

    Patches get the clip's mean colour; of hidden frames the nearest one that is not takes the
    place, since a grey frame would itself be a change.
    """
    forward = compiled_forward(run.model, run.config, make_mesh())
    hide = jax.jit(occlude, static_argnums=2)

    def batches():
        size = 16
        for number, batch in enumerate(clip_batches(run, dataset, rows, size)):
            if hidden is not None:
                count = len(batch["row"])
                places = np.minimum(number * count + np.arange(count), len(rows) - 1)
                mask, frames = hidden[places], batch["frames"]
                if mask.ndim == 4:
                    frames = np.asarray(hide(frames, mask, "mean"))
                else:
                    frames = np.stack(
                        [f[_shown_instead(m)] for f, m in zip(frames, mask, strict=True)]
                    )
                batch = batch | {"frames": frames}
            yield batch

    logits = collect_logits(lambda batch: forward(run.variables, batch), batches()).logits
    return float((logits.argmax(-1) == labels).mean())


def _shown_instead(hidden: np.ndarray) -> np.ndarray:
    """Returns for each frame itself, or the nearest one that is not hidden; int [T]."""
    left = np.flatnonzero(~hidden)
    if not len(left):
        return np.arange(len(hidden))
    return left[np.abs(left[None] - np.arange(len(hidden))[:, None]).argmin(axis=1)]
