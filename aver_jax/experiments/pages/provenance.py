"""What the numbers of a page must not be quoted without: where they come from."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.audit.stored import best_baseline, folds_in_words, read_audit
from aver_jax.experiments.grid.run_result import made_here
from aver_jax.experiments.stats.predictions import CellResult, Failure
from aver_jax.explanation.tested import Tested
from aver_jax.report.intervals import percent_with_interval


def trainings(results: Sequence[CellResult]) -> dict[str, Any]:
    """Returns how the runs of a page were made, for its template.

    Versions, devices and dates are distinct ones; those of now where a run does not tell.
    """
    here = made_here()
    stored = [o.made for o in results if o.made]
    # Late fusion begins at the branches of this page.
    parents = {
        subtree: Path(folder).name
        for o in results
        if o.cell.network != "late"
        for subtree, folder in o.config.get("init", {}).items()
        if folder
    }
    return {
        "count": len(results),
        "selects": sorted({o.config["evaluation"]["select"] for o in results}),
        "parents": [f"{subtree} of {name}" for subtree, name in sorted(parents.items())],
        "seeds": sorted({o.cell.seed for o in results}),
        "hours": sum(o.seconds for o in results) / 3600,
        "made": {
            name: "; ".join(sorted({made[name] for made in stored} or {here[name]}))
            for name in here
        },
        "unknown": sum(not o.made for o in results),
    }


def tested(results: Sequence[CellResult]) -> dict[str, int]:
    """Returns the number of actors and of seeds that intervals are over."""
    return {
        "actors": len(np.unique(np.concatenate([o.actors for o in results]))),
        "seeds": len({o.cell.seed for o in results}),
    }


def missing(failures: Sequence[Failure]) -> list[tuple[str, str]]:
    """Returns (run, reason) of the trainings that failed."""
    return [(cell.name, without_folders(reason)) for cell, reason in failures]


def without_folders(text: str) -> str:
    """Returns a line without the folders of its absolute paths: "/a/b/c.json" is "c.json"."""
    return re.sub(r"(?<![\w.])~?/(?:[^\s/:;,)]+/)*(?=[^\s/])", "", text)


def trivial_of(data: Path, protocol: str, target: str) -> str:
    """Returns what the best trivial baseline reaches on a dataset over all its folds, in words.

    Without the dataset's folder, which is not the same on another machine.

    Args:
      data: the prepared dataset.
      protocol: its name, also as it prints itself.
      target: whose labels.
    """
    audit = read_audit(data, protocol, target)
    if audit is None:
        return "unknown, there is no audit of this dataset (`aver audit`)"
    best = best_baseline(audit)
    return (
        f"{percent_with_interval(best)} over {folds_in_words(audit)}, {best['model']} on "
        f"{best['name']} (`aver audit`); chance {100 * best['chance']:.1f}%"
    )


def skipped_of(data: Path) -> int:
    """Returns the number of media files that `aver prepare` skipped; 0 without its list."""
    table = data / "skipped.csv"
    return max(0, len(table.read_text().splitlines()) - 1) if table.exists() else 0


def settings_of(tested: Tested, target: str) -> dict[str, Any]:
    """Returns what the parts of an experiment on a run depend on: the run, the clips, the class."""
    return {
        "run": tested.run.folder.resolve().name,
        "step": int(tested.run.step),
        "trained on": tested.run.dataset.get("index_sha256"),
        "dataset": tested.dataset.fingerprint,
        "clips": [int(row) for row in tested.rows],
        "target": target,
    }


def tested_run(tested: Tested, target: str) -> dict[str, str]:
    """Returns, in words, which model and clips an experiment is about; without their folders."""
    run, rows = tested.run, tested.rows
    actors = len(set(tested.dataset.index["actor"][rows].tolist()))
    some = "" if len(rows) == tested.of else f", evenly chosen among {tested.of}"
    model = run.config.model
    kind = f"{model.name}, {model.attention}" if "attention" in model else model.name
    return {
        "model": f"{kind}, {run.config.data.num_frames} frames of {run.config.data.image_size} "
        f"pixels, `frontend.normalization={run.config.frontend.normalization}`, step {run.step}",
        "clips": f"{len(rows)} test clips of {actors} actors{some}; {tested.dataset.name}, "
        f"{tested.protocol} fold {tested.fold}, {run.config.data.target} labels",
        "explained class": {"predicted": "the predicted one", "label": "the label"}[target],
        **made_here(),
    }
