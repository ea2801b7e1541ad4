"""The file that `aver audit` writes: where it is, what it says, and one sentence of it.

Imports neither scikit-learn nor OpenCV, so that evaluation and reports may call it at no cost.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from aver_jax.report.intervals import percent_with_interval

#: Counts up when the meaning of a field of audit.json changes.
VERSION = 1
AUDIT_FILE = "audit.json"
PAGE_FILE = "audit.html"

# Group of features -> what a network must see or hear to be set beside them; others suit all.
_NEEDS = {"picture": "video", "sound": "audio"}
_BOTH = ("video", "audio")

# What a split of the protocol "folder" calls itself when no actor is known (`Split.name`).
_PRINTED_NAMES = {"random_actors_unknown": "folder"}


def audit_folder(data: str | Path, protocol: str, target: str) -> Path:
    """Returns the folder that an audit is written to by default.

    Args:
      data: the prepared dataset.
      protocol: its name, also as it prints itself ("random_actors_unknown").
      target: whose labels.
    """
    return Path(data) / "audit" / f"{_PRINTED_NAMES.get(protocol, protocol)}_{target}"


def dataset_hash(data: str | Path) -> str:
    """Returns a hash of index.csv and preparation.json: other clips or crops, another hash."""
    hashed = hashlib.sha256()
    for name in ("index.csv", "preparation.json"):
        hashed.update((Path(data) / name).read_bytes())
    return hashed.hexdigest()


def read_audit(data: str | Path, protocol: str, target: str) -> dict[str, Any] | None:
    """Returns the audit of a dataset, or None where there is none that still holds.

    An audit no longer holds when the dataset was prepared anew since, or when it was written by
    another version of this file's format. A file that is no JSON counts as none: it is made anew
    by the command that the caller is told of.

    Args:
      data: the prepared dataset.
      protocol: its name, also as it prints itself.
      target: whose labels.
    """
    file = audit_folder(data, protocol, target) / AUDIT_FILE
    try:
        audit = json.loads(file.read_text(encoding="utf-8"))
        current = dataset_hash(data)
    except (OSError, ValueError):
        return None
    holds = isinstance(audit, dict) and audit.get("version") == VERSION
    return audit if holds and audit.get("dataset_hash") == current else None


def best_baseline(audit: Mapping[str, Any], modalities: Collection[str] = _BOTH) -> dict[str, Any]:
    """Returns the trivial baseline with the highest accuracy over the audit's folds.

    Args:
      audit: from `read_audit`.
      modalities: of the network that is set beside it; features of others are left out.

    Returns:
      name (of the features), group, model, value, low, high (None with fewer than 2 actors),
      chance (share of the largest class), tried (number of baselines that it is the best of).
      Shares in 0 ... 1.
    """
    return _described(audit, _best(audit, modalities), audit["chance"], modalities)


def best_baseline_of_fold(
    audit: Mapping[str, Any], fold: int, modalities: Collection[str] = _BOTH
) -> dict[str, Any] | None:
    """Returns the same baseline trained and tested on one fold of the protocol; None if not tried.

    The features and the model are those of `best_baseline`. The best on the fold itself would be
    the luckiest of two dozen on a few test actors.

    Args:
      audit: from `read_audit`.
      fold: 1-based.
      modalities: as in `best_baseline`.

    Returns:
      As `best_baseline`; chance is what always predicting the training part's largest class scores.
    """
    best = _best(audit, modalities)
    scores = best["protocol_folds"].get(str(fold))
    if scores is None:
        return None
    chance = audit["protocol_chance"][str(fold)]
    return _described(audit, {**best, **scores}, chance, modalities)


def audit_line(
    data: str | Path,
    protocol: str,
    target: str,
    fold: int,
    modalities: Collection[str] = _BOTH,
) -> str:
    """Returns one sentence to stand beside a run's score: what a trivial model reaches.

    Args:
      data: the prepared dataset.
      protocol: its name, also as it prints itself.
      target: whose labels.
      fold: whose test part was scored, 1-based. Without a score on it, that over all folds is told.
      modalities: of the run.
    """
    audit = read_audit(data, protocol, target)
    if audit is None:
        command = f"aver audit {data} --protocol {_PRINTED_NAMES.get(protocol, protocol)}"
        if target != "intended":
            command += f" --target {target}"
        return f"no audit of this dataset: run `{command}` to see what trivial models reach"
    own = best_baseline_of_fold(audit, fold, modalities)
    best = own or best_baseline(audit, modalities)
    where = "" if own else f" over {audit['folds']} folds of its own"
    return (
        f"best of {best['tried']} trivial baselines{where}: {percent_with_interval(best)}, "
        f"{best['model']} on {best['name']} (aver audit); chance {100 * best['chance']:.1f}%"
    )


def folds_in_words(audit: Mapping[str, Any]) -> str:
    """Returns "5 actor-disjoint folds", or what they are where no actor is known."""
    kind = (
        "actor-disjoint folds"
        if audit.get("actors_known", True)
        else ("folds of clips (actors unknown: one may be on both sides)")
    )
    return f"{audit['folds']} {kind}"


def _tried(audit, modalities):
    return [
        entry for entry in audit["baselines"] if _NEEDS.get(entry["group"]) in (None, *modalities)
    ]


def _best(audit, modalities):
    # Of equals the first: features are listed from the simplest to the least simple.
    return max(_tried(audit, modalities), key=lambda entry: entry["value"])


def _described(audit, entry, chance, modalities):
    kept = ("name", "group", "model", "value", "low", "high")
    described = {key: entry[key] for key in kept}
    return {**described, "chance": chance, "tried": len(_tried(audit, modalities))}
