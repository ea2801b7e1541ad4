"""The file that `aver audit` writes: where it is, what it says, and one sentence of it.

Imports neither scikit-learn nor OpenCV, so that evaluation and reports may call it at no cost.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Counts up when the meaning of a field of audit.json changes.
VERSION = 1
AUDIT_FILE = "audit.json"
PAGE_FILE = "audit.html"

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


def best_baseline(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the trivial baseline with the highest accuracy over actor-disjoint folds.

    Args:
      audit: from `read_audit`.

    Returns:
      name (of the features), group, model, value, low, high (None with fewer than 2 actors),
      chance (share of the largest class). Shares in 0 ... 1.
    """
    return _described(_best(audit), audit["chance"])


def best_baseline_of_fold(audit: Mapping[str, Any], fold: int) -> dict[str, Any] | None:
    """Returns the same baseline trained and tested on one fold of the protocol; None if not tried.

    The features and the model are those of `best_baseline`. The best on the fold itself would be
    the luckiest of two dozen on a few test actors.

    Args:
      audit: from `read_audit`.
      fold: 1-based.

    Returns:
      As `best_baseline`; chance is what always predicting the training part's largest class scores.
    """
    scores = _best(audit)["protocol_folds"].get(str(fold))
    if scores is None:
        return None
    return _described({**_best(audit), **scores}, audit["protocol_chance"][str(fold)])


def audit_line(data: str | Path, protocol: str, target: str, fold: int) -> str:
    """Returns one sentence to stand beside a run's score: what a trivial model reaches.

    Args:
      data: the prepared dataset.
      protocol: its name, also as it prints itself.
      target: whose labels.
      fold: whose test part was scored, 1-based. Without a score on it, that over all folds is told.
    """
    audit = read_audit(data, protocol, target)
    if audit is None:
        command = f"aver audit {data} --protocol {_PRINTED_NAMES.get(protocol, protocol)}"
        if target != "intended":
            command += f" --target {target}"
        return f"no audit of this dataset: run `{command}` to see what trivial models reach"
    own = best_baseline_of_fold(audit, fold)
    best = own or best_baseline(audit)
    where = "" if own else f" over {audit['folds']} folds of its own"
    return (
        f"best trivial baseline{where}: {percent_with_interval(best)}, {best['model']} on "
        f"{best['name']} (aver audit); chance {100 * best['chance']:.1f}%"
    )


def folds_in_words(audit: Mapping[str, Any]) -> str:
    """Returns "5 actor-disjoint folds", or what they are where no actor is known."""
    kind = (
        "actor-disjoint folds"
        if audit.get("actors_known", True)
        else ("folds of clips (actors unknown: one may be on both sides)")
    )
    return f"{audit['folds']} {kind}"


def percent_with_interval(score: Mapping[str, Any]) -> str:
    """Returns such as "41.2% [35.0, 47.1]" of an entry with value, low and high."""
    text = f"{100 * score['value']:.1f}%"
    if score["low"] is None:
        return text
    return f"{text} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"


def _best(audit):
    # Of equals the first: features are listed from the simplest to the least simple.
    return max(audit["baselines"], key=lambda entry: entry["value"])


def _described(entry, chance):
    kept = ("name", "group", "model", "value", "low", "high")
    return {**{key: entry[key] for key in kept}, "chance": chance}
