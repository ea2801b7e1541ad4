"""All the scores of one split as a plain dict, as files, and as a table for the terminal."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.evaluation import bootstrap, metrics
from aver_jax.runtime.atomic_files import csv_text, write_whole

HEADLINES = {"loss": "loss", "war": "WAR", "uar": "UAR", "macro_f1": "macro F1"}


def score_clips(
    logits,
    labels,
    actors,
    sexes,
    classes,
    samples: int = bootstrap.SAMPLES,
    branches: Mapping[str, Any] | None = None,
) -> dict:
    """Scores of a split, with 95% intervals that resample actors.

    Args:
      logits: float [n, C], or log probabilities.
      labels: int [n].
      actors: [n] actor of each clip.
      sexes: [n] text, "" where unknown.
      classes: C names in label order.
      samples: bootstrap replicates.
      branches: name -> float [n, C], what each branch of a fusion model says by itself.

    Returns:
      JSON types only, unknown values None: `clips`, `actors`, `metrics` (each with value, low,
      high), `recall` per class, `per_sex`, `per_actor`, `confusion` (rows true), `calibration`;
      with branches, `branches`: name -> the same metrics, and `fused_minus`, by how much the
      fusion's WAR and UAR are above the branch's (with paired intervals).
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    actors, sexes = np.asarray(actors).astype(str), np.asarray(sexes).astype(str)
    predictions, num_classes = logits.argmax(-1), len(classes)
    confusion = metrics.confusion_matrix(labels, predictions, num_classes)

    def interval(statistic):
        return bootstrap.bootstrap_interval(
            statistic, labels, predictions, actors, num_classes, samples
        )

    recall, (low, high) = metrics.per_class_recall(confusion), interval(metrics.per_class_recall)
    per_class = {
        name: {"clips": int(confusion[i].sum()), **estimate(recall[i], (low[i], high[i]))}
        for i, name in enumerate(classes)
    }
    sex_of = dict(zip(actors, sexes, strict=True))
    results = {
        "clips": len(labels),
        "actors": len(sex_of),
        "metrics": _headline(logits, labels, actors, samples),
        "recall": per_class,
        "per_sex": _per_group(labels, predictions, sexes, actors, num_classes, "sex"),
        "per_actor": [
            {**entry, "sex": sex_of[entry["actor"]]}
            for entry in _per_group(labels, predictions, actors, actors, num_classes, "actor")
        ],
        "confusion": confusion.tolist(),
        "calibration": calibration(logits, labels),
        "intervals": {
            "level": bootstrap.LEVEL,
            "resampled": "actors",
            "samples": samples,
            "seed": bootstrap.SEED,
        },
    }
    if branches:
        results["branches"] = {
            name: _branch(np.asarray(own), predictions, labels, actors, samples)
            for name, own in branches.items()
        }
    return results


def _headline(logits, labels, actors, samples) -> dict:
    """Returns the headline scores of one set of predictions, each with value, low and high."""
    predictions, num_classes = logits.argmax(-1), logits.shape[1]
    confusion = metrics.confusion_matrix(labels, predictions, num_classes)
    losses = metrics.negative_log_likelihood(logits, labels)
    headline = {"loss": estimate(losses.mean(), bootstrap.bootstrap_mean_interval(losses, actors))}
    for name in ("war", "uar", "macro_f1"):
        statistic = getattr(metrics, name)
        ends = bootstrap.bootstrap_interval(
            statistic, labels, predictions, actors, num_classes, samples
        )
        headline[name] = estimate(statistic(confusion), ends)
    return headline


def _branch(logits, fused, labels, actors, samples) -> dict:
    """Returns the headline scores of one branch, and by how much the fusion's are above them."""
    predictions, num_classes = logits.argmax(-1), logits.shape[1]
    above = {}
    for name in ("war", "uar"):
        difference = bootstrap.paired_difference(
            getattr(metrics, name), labels, fused, predictions, actors, num_classes, samples
        )
        above[name] = estimate(difference.value, (difference.low, difference.high))
    return {**_headline(logits, labels, actors, samples), "fused_minus": above}


def calibration(logits, labels) -> dict:
    """Returns the loss, expected calibration error and its bins, as JSON types.

    Args:
      logits: float [n, C].
      labels: int [n].
    """
    bins = metrics.reliability(np.exp(metrics.log_softmax(logits)), labels)
    return {
        "ece": _number(bins.error),
        "loss": _number(metrics.negative_log_likelihood(logits, labels).mean()),
        "bins": {
            "edges": [_number(x) for x in bins.edges],
            "count": [int(x) for x in bins.count],
            "confidence": [_number(x) for x in bins.confidence],
            "accuracy": [_number(x) for x in bins.accuracy],
        },
    }


def write_files(results: dict, folder: Path) -> None:
    """Writes confusion.csv, per_actor.csv and, last, results.json, each moved into place whole.

    Args:
      results: of `score_clips`, with `classes`.
      folder: made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = results["classes"]
    table = [["true \\ predicted", *classes]]
    table += [[name, *row] for name, row in zip(classes, results["confusion"], strict=True)]
    write_whole(folder / "confusion.csv", csv_text(table))
    columns = ("actor", "sex", "clips", "war", "uar")
    table = [columns, *([row[c] for c in columns] for row in results["per_actor"])]
    write_whole(folder / "per_actor.csv", csv_text(table))
    write_whole(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")


def results_table(results: dict, trivial: str = "") -> str:
    """Returns the results as compact text, the protocol's name first.

    Args:
      results: of `job.evaluate_run`.
      trivial: what a trivial model reaches (`audit.stored.audit_line`), under WAR and UAR.
    """
    lines = [protocol_line(results), f"{results['clips']} clips of {results['actors']} actors"]
    if results.get("dropped"):
        lines[-1] += f"; {results['dropped']} clips without a label left out"
    if results.get("untrained"):
        lines.append(f"no training clip is of {', '.join(results['untrained'])}")
    lines += ["", f"{'':<12}{'value':>8}   95% interval (actors resampled)"]
    for key, name in HEADLINES.items():
        entry = results["metrics"][key]
        lines.append(f"{name:<12}{shown(key, entry['value']):>8}   {span(key, entry)}")
        if key == "uar" and trivial:
            lines.append(trivial)
    if "branches" in results:
        lines += ["", f"{'predicted by':<12}{'WAR':>8}   {'':<18}{'UAR':>8}"]
        for name, entry in {**results["branches"], "fused": results["metrics"]}.items():
            lines.append(f"{name:<12}{_pair(entry)}")
        for name, entry in results["branches"].items():
            lines.append(f"{'fused-' + name:<12}{_pair(entry['fused_minus'])}")
    lines += ["", f"{'recall':<12}{'':>8}   {'':<18}{'clips':>6}"]
    for name, entry in results["recall"].items():
        lines.append(
            f"{name:<12}{shown('recall', entry['value']):>8}   "
            f"{span('recall', entry):<18}{entry['clips']:>6}"
        )
    lines += ["", f"{'sex':<12}{'WAR':>8}{'UAR':>8}{'clips':>8}{'actors':>8}"]
    for entry in results["per_sex"]:
        lines.append(_group_row(entry["sex"] or "unknown", entry) + f"{entry['actors']:>8}")
    lines += ["", f"{'actor':<12}{'WAR':>8}{'UAR':>8}{'clips':>8}"]
    lines += [_group_row(entry["actor"], entry) for entry in results["per_actor"]]
    lines += ["", f"calibration error (ECE, {metrics.CALIBRATION_BINS} bins)"]
    plain = results["calibration"]
    lines.append(f"  as trained   {shown('ece', plain['ece'])}   loss {plain['loss']:.3f}")
    if "temperature" in results:
        scaled = results["temperature"]
        # Where every clip is right, or none, the best temperature has no bound.
        ends = "; the end of its range" if scaled["value"] in metrics.TEMPERATURE_RANGE else ""
        fitted = f"(fitted on {scaled['fitted_clips']} validation clips{ends})"
        lines.append(
            f"  T = {scaled['value']:<8.3f} {shown('ece', scaled['ece'])}   "
            f"loss {scaled['loss']:.3f}   {fitted}"
        )
    return "\n".join(lines)


def protocol_line(results: dict) -> str:
    """Returns what a score must not be quoted without: dataset, protocol, fold, target, split."""
    parts = [
        f"{results['dataset']}, protocol {results['protocol']}",
        f"fold {results['fold']}",
        f"{results['target']} labels",
        f"{results['split']} split",
        f"checkpoint {results['checkpoint']} (step {results['step']})",
    ]
    if results.get("views", 1) > 1:
        parts.append(f"{results['views']} views")
    return ", ".join(parts)


def _per_group(labels, predictions, groups, actors, num_classes, column):
    names, confusions = metrics.grouped_confusion(labels, predictions, groups, num_classes)
    return [
        {
            column: str(name),
            "clips": int(confusion.sum()),
            "actors": len(np.unique(actors[groups == name])),
            "war": _number(metrics.war(confusion)),
            "uar": _number(metrics.uar(confusion)),
        }
        for name, confusion in zip(names, confusions, strict=True)
    ]


def estimate(value, ends) -> dict[str, float | None]:
    """Returns a value and its interval as JSON types, None where they are NaN."""
    return {"value": _number(value), "low": _number(ends[0]), "high": _number(ends[1])}


def _number(value):
    value = float(value)
    return value if math.isfinite(value) else None


def shown(key: str, value: float | None) -> str:
    """Returns a score as text: percent, but for the loss; "-" where unknown."""
    if value is None:
        return "-"
    return f"{value:.3f}" if key == "loss" else f"{100 * value:.1f}%"


def span(key: str, entry: Mapping[str, Any]) -> str:
    """Returns the interval of an estimate as text; "-" where there is none."""
    if entry["low"] is None:
        return "-"
    return f"[{shown(key, entry['low'])}, {shown(key, entry['high'])}]"


def _pair(entry):
    war, uar = (f"{shown(k, entry[k]['value']):>8}   {span(k, entry[k])}" for k in ("war", "uar"))
    return f"{war:<29}{uar}"


def _group_row(name, entry):
    scores = "".join(f"{shown(key, entry[key]):>8}" for key in ("war", "uar"))
    return f"{name:<12}{scores}{entry['clips']:>8}"
