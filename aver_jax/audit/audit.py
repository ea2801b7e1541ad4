"""The audit of a dataset: trivial baselines, what else they tell, balance, shared actors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from aver_jax.audit import baselines, duplicates
from aver_jax.audit.features import GROUPS, SPECTRUM, STILL, features_of
from aver_jax.audit.stored import VERSION, dataset_hash
from aver_jax.errors import UserError
from aver_jax.input import Dataset, Split, split

FOLD = 1  # of the protocol, on which the baselines are tried as a network would be


def audited(
    dataset: Dataset,
    protocol: str,
    target: str,
    progress: Callable[[int], object] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Returns the audit as JSON types, and the features and labels that it was made from.

    Args:
      dataset: an open dataset.
      protocol, target: as `input.split` takes them.
      progress: called with 1 after each clip that was read.

    Returns:
      The audit; the features by name, float32 [n, D]; labels int32 [n] of the n clips with one.
      The audit has `version`, `dataset_hash`, `dataset`, `protocol`, `target`, `clips`, `actors`
      (0 where none is known), `actors_known`, `folds`, `chance`;
      `baselines`: for each feature and model name, group, model, value, low, high over
      actor-disjoint folds, and `protocol_folds`: fold -> value, low, high on the protocol's test
      clips; `protocol_chance`: fold -> share; `leaks`: what is told, by which feature, value, low,
      high, chance; `balance`: part -> class -> clips; `shared_actors`: pairs of parts -> names;
      `duplicates`: pairs of clips that are alike, their parts, and what is alike.

    Raises:
      UserError: fewer than two classes with a label, or one actor alone; an unknown protocol; a
        damaged image.
    """
    parts = split(dataset, protocol, FOLD, target)
    rows = np.flatnonzero(parts.labels >= 0)
    actors = dataset.index["actor"][rows]
    labels = parts.labels[rows]
    _check(dataset, labels, actors)
    table = features_of(dataset, rows, progress)
    # Such small problems are solved sooner by one thread than by several that wait for each other.
    with threadpool_limits(1):
        return _audit(dataset, parts, rows, table), table, labels


def _audit(dataset: Dataset, parts: Split, rows: np.ndarray, table) -> dict[str, Any]:
    actors, labels = dataset.index["actor"][rows], parts.labels[rows]
    known = bool(np.any(actors != ""))
    # Where nobody is known, clips are dealt and resampled as if each were of another person.
    groups = actors if known else None
    people = actors if known else rows
    entries = []
    place = {int(row): i for i, row in enumerate(rows)}
    train, test = ([place[int(row)] for row in part] for part in (parts.train, parts.test))
    common = np.bincount(labels[train]).argmax()
    for name, x in table.items():
        for model_name, model in baselines.models().items():
            found = baselines.out_of_fold(model, x, labels, groups)
            own = baselines.fitted(model, x[train], labels[train]).predict(x[test])
            entries.append(
                {
                    "name": name,
                    "group": GROUPS[name],
                    "model": model_name,
                    **baselines.accuracy(found == labels, people),
                    "protocol_folds": {
                        str(FOLD): baselines.accuracy(own == labels[test], people[test])
                    },
                }
            )
    return {
        "version": VERSION,
        "dataset_hash": dataset_hash(dataset.path),
        "dataset": dataset.name,
        "protocol": parts.name,
        "target": parts.target,
        "classes": list(dataset.classes),
        "clips": len(rows),
        "actors": len(np.unique(actors)) if known else 0,
        "actors_known": known,
        "folds": baselines.folds_of(labels, groups),
        "chance": baselines.chance(labels),
        "baselines": entries,
        "protocol_chance": {str(FOLD): float((labels[test] == common).mean())},
        "leaks": _leaks(dataset, rows, actors, labels, table) if known else [],
        "balance": _balance(dataset, parts),
        "shared_actors": _shared(dataset, parts),
        "duplicates": _duplicates(dataset, parts),
        "has_sound": SPECTRUM in table,
    }


def _check(dataset: Dataset, labels: np.ndarray, actors: np.ndarray) -> None:
    classes, people = len(np.unique(labels)), np.unique(actors)
    if len(labels) == 0:
        raise UserError(f"{dataset.path} has no clip with a label of this target; give another")
    if classes < 2:
        raise UserError(
            f"{dataset.path} has clips of {classes} class alone, expected at least 2: there is "
            "nothing to tell apart"
        )
    if np.unique(labels, return_counts=True)[1].max() < 2:
        raise UserError(
            f"{dataset.path} has one clip of each class, expected at least 2 of one: a model "
            "cannot be tried on what it has not learnt"
        )
    if len(people) < 2 and people[0] != "":
        raise UserError(
            f"{dataset.path} has clips of 1 actor alone, expected at least 2: baselines are tested "
            "on actors that they have not seen"
        )


def _leaks(dataset, rows, actors, labels, table) -> list[dict[str, Any]]:
    """Returns how well the actor tells the emotion, and a still and a spectrum who speaks what."""
    most_frequent = baselines.majority_of_each(labels, actors)
    found = [
        {
            "told": "emotion",
            "by": "the actor's most frequent one",
            **baselines.accuracy(most_frequent == labels, actors),
            "chance": baselines.chance(labels),
        }
    ]
    asked = {"actor": actors, "sex": dataset.index["sex"][rows],
             "sentence": dataset.index["sentence"][rows]}  # fmt: skip
    model = baselines.models()["logistic regression"]
    for what, truth in asked.items():
        names, counts = np.unique(truth, return_counts=True)
        if len(names) < 2 or "" in names or counts.min() < 2:
            continue
        for feature in (STILL, SPECTRUM):
            if feature in table:
                groups = None if what == "actor" else actors
                told = baselines.out_of_fold(model, table[feature], truth, groups)
                found.append(
                    {
                        "told": what,
                        "by": feature,
                        **baselines.accuracy(told == truth, actors),
                        "chance": baselines.chance(truth),
                    }
                )
    return found


def _balance(dataset: Dataset, parts: Split) -> dict[str, dict[str, int]]:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    return {
        part: {
            name: int((parts.labels[rows] == number).sum())
            for number, name in enumerate(dataset.classes)
        }
        for part, rows in named.items()
    }


def _duplicates(dataset: Dataset, parts: Split) -> list[dict[str, Any]]:
    part_of = {
        int(row): name for name in ("train", "validation", "test") for row in getattr(parts, name)
    }
    rows = np.array(sorted(part_of))
    found = duplicates.duplicates(duplicates.hashes_of(dataset, rows))
    return duplicates.described(found, dataset, rows, part_of)


def _shared(dataset: Dataset, parts: Split) -> dict[str, list[str]]:
    """Returns actors by the pair of parts that both have clips of theirs."""
    actors = dataset.index["actor"]
    of = {
        name: set(actors[getattr(parts, name)].tolist()) - {""}
        for name in ("train", "validation", "test")
    }
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    return {f"{a} and {b}": sorted(of[a] & of[b]) for a, b in pairs if of[a] & of[b]}
