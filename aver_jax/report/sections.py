"""What a report says: sections made from results, logs, clips and commands."""

import json
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from aver_jax.config import flat_fields
from aver_jax.errors import UserError
from aver_jax.report import figures
from aver_jax.report.html import (
    Block,
    Columns,
    Commands,
    Notice,
    Section,
    Table,
    Text,
    Tiles,
    drawn,
    write_report,
)
from aver_jax.runs.metrics_log import read_metrics

# Codes of CREMA-D; other sets name their classes in words.
CLASS_WORDS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
TARGET_WORDS = {
    "intended": "the emotion that the actor was asked to show",
    "voice": "the emotion that most listeners heard in the voice alone",
    "face": "the emotion that most viewers saw in the face alone",
    "multimodal": "the emotion that most raters perceived in face and voice together",
}
_PACKAGES = (
    "aver_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
    "opencv-python-headless", "av", "matplotlib",
)  # fmt: skip


def summary(results: Mapping[str, Any], extra: Sequence[tuple[str, str, str]] = ()) -> Section:
    """Returns headline scores with their protocol.

    Args:
      results: of `aver evaluate` (results.json).
      extra: more tiles (name, value, detail).
    """
    chance, trivial = 100 / len(results["classes"]), results.get("trivial")
    tiles = [
        ("Accuracy (WAR)", *_estimate(results["metrics"]["war"])),
        ("Mean recall (UAR)", *_estimate(results["metrics"]["uar"])),
        ("Macro F1", *_estimate(results["metrics"]["macro_f1"])),
        ("Guessing", f"{chance:.0f}%", f"one of {len(results['classes'])} classes"),
        *extra,
    ]
    if trivial:
        reached, ends = _estimate(trivial)
        told = f"{trivial['model']} on {trivial['name']}, best of {trivial['tried']}; {ends}"
        tiles.insert(4, ("Best trivial baseline", reached, told))
    lead = (
        f"{results['clips']} {results['split']} clips of {results['actors']} actors. "
        f"Protocol {results['protocol']}, fold {results['fold']}, {results['target']} labels. "
        "Ranges are 95% bootstrap intervals that resample actors."
    )
    if results["split"] == "test" and not trivial:
        lead += (
            " There is no audit of the dataset (aver audit), which says what trivial models reach."
        )
    return Section("Summary", [Tiles(tiles)], lead)


def meaning(classes: Sequence[str], target: str = "intended", dataset: str = "") -> Section:
    """Returns what the labels mean, and what the system must not be used for.

    Args:
      classes: class names.
      target: whose labels they are, a key of `TARGET_WORDS`.
      dataset: name of the dataset: what is known of the labels' origin depends on it.
    """
    shown_in = "in a rendered clip" if dataset == "synthetic" else "in an acted clip"
    label = f"{TARGET_WORDS.get(target, target)}, {shown_in}"
    if dataset == "folder":
        label = "what the table of labels said of a clip, whoever wrote it"
    named = ", ".join(
        f"{name} ({CLASS_WORDS[name]})" if name in CLASS_WORDS else name for name in classes
    )
    return Section(
        "What the labels mean",
        [
            Text(
                [
                    f"Classes: {named}. A label is {label}. It is not what a person felt.",
                    "A probability says how much a clip resembles the training clips of a class. "
                    "It is not a measure of feeling, intent, honesty or health. People express the "
                    "same emotion differently; scores differ between people and groups of people, "
                    "and fall on faces, voices, cameras and situations unlike those trained on.",
                    "A heat map shows which patches the network's prediction depended on. It "
                    "explains the network, not the person.",
                ]
            ),
            Notice(
                "Not for decisions about people.",
                "Do not use it to judge, rank, watch or diagnose anyone: not in hiring, work, "
                "school, policing, borders, insurance, courts or care, and not on people who have "
                "not agreed. Inferring emotions at work and in education is prohibited in the "
                "European Union, with narrow exceptions (AI Act, Article 5).",
            ),
        ],
    )


def training(
    records: Sequence[Mapping[str, float]], select: str = "validation/war", people: bool = True
) -> Section:
    """Returns training curves.

    Args:
      records: the lines of metrics.jsonl.
      select: the score that names the best checkpoint (`config.evaluation.select`).
      people: whether the actors are known, so that no one is in two parts.
    """
    blocks: list[Block] = []
    if records:
        blocks.append(drawn(partial(figures.training_curves, records)))
    best = max(
        (r for r in records if select in r),
        # Of equals the later one, as checkpoints are kept.
        key=lambda r: (-r[select] if select.endswith("loss") else r[select], r["step"]),
        default=None,
    )
    lead = "WAR is accuracy; UAR is the mean recall over classes."
    if best:
        lead = (
            f"Best {select.replace('/', ' ')} at step {best['step']}, where validation WAR is "
            f"{100 * best['validation/war']:.1f}%. Checkpoints are selected on validation "
            + ("actors, never on test actors. " if people else "clips; actors are unknown. ")
            + lead
        )
    return Section("Training", blocks, lead)


def scores(results: Mapping[str, Any]) -> Section:
    """Returns confusion, branches, recall per class, scores per sex and actor, calibration."""
    recall = Table(
        ("class", "recall", "95% interval", "clips"),
        [
            (CLASS_WORDS.get(name, name), *_estimate(entry), entry["clips"])
            for name, entry in results["recall"].items()
        ],
        "Recall per class",
    )
    sexes = Table(
        ("sex", "WAR", "UAR", "clips", "actors"),
        [
            (e["sex"] or "unknown", _percent(e["war"]), _percent(e["uar"]), e["clips"], e["actors"])
            for e in results["per_sex"]
        ],
        "Per sex",
    )
    actors = Table(
        ("actor", "sex", "WAR", "UAR", "clips"),
        [
            (e["actor"] or "unknown", e["sex"], _percent(e["war"]), _percent(e["uar"]), e["clips"])
            for e in sorted(results["per_actor"], key=lambda e: e["war"] or 0)[:12]
        ],
        "Per actor" if len(results["per_actor"]) <= 12 else "The 12 actors recognised least",
    )
    matrix = drawn(
        partial(figures.confusion, results),
        "Share of each true class (rows) given to each class; number of clips in small print.",
    )
    diagram = drawn(
        partial(figures.reliability, results),
        "Calibration: where points lie on the diagonal, a probability means what it says.",
        width=400,
    )
    tables = [recall, sexes, actors]
    return Section(
        f"Scores on the {results['split']} split",
        [Columns([[matrix, diagram], [*_branches(results), *tables]])],
    )


def modalities(results: Mapping[str, Any]) -> Section:
    """Returns what face and voice achieve, each alone and together.

    Args:
      results: of `aver evaluate` on a model with branches.
    """
    picture, table = _branches(results)
    lead = (
        f"{results['clips']} {results['split']} clips of {results['actors']} actors, the same for "
        f"every line. Protocol {results['protocol']}, fold {results['fold']}. Each branch is asked "
        "by itself (its side head); the fused prediction uses both."
    )
    return Section("Face, voice, and both", [picture, table], lead)


def controls(results: Mapping[str, Any]) -> Section:
    """Returns scores of the same clips with something taken away; empty where none were asked for.

    Args:
      results: of `aver evaluate`, with `--controls` or without.
    """
    title, found = "Controls", results.get("controls")
    if found is None:
        return Section(title, [])
    rows = []
    for row in found["rows"]:
        above = (row["minus_as_is"] or {}).get("war")
        difference = (_points(above["value"]), _span(above)) if above else ("", "")
        uar = _percent(row["uar"]["value"])
        rows.append((row["control"], *_estimate(row["war"]), uar, *difference))
    columns = ("control", "WAR", "95% interval", "UAR", "WAR minus as is", "95% interval")
    lead = (
        f"The same checkpoint on the same {results['clips']} {results['split']} clips with "
        "something taken away. Where a score stays as it is, the model can do without it. "
        "Differences are in percentage points, with paired intervals over actors."
    )
    done = [f"{row['control']}: {row['detail']}" for row in found["rows"] if row["detail"]]
    return Section(
        title, [Table(columns, rows), Text([f"{'; '.join(done)}.", found["note"]])], lead
    )


def _branches(results: Mapping[str, Any]) -> list[Block]:
    """Returns the scores of branches and their fusion; nothing of a model without branches."""
    if "branches" not in results:
        return []
    rows = []
    for name, entry in results["branches"].items():
        above = entry["fused_minus"]["war"]
        rows.append((name, *_estimate(entry["war"]), _points(above["value"]), _span(above)))
    rows.append(("fused", *_estimate(results["metrics"]["war"]), "", ""))
    return [
        drawn(
            partial(figures.branches, results),
            "What each branch predicts by itself, and the fused prediction.",
            width=420,
        ),
        Table(
            ("predicted by", "WAR", "95% interval", "fused is above by", "95% interval"),
            rows,
            "Branches and their fusion (the differences are paired: both on the same actors)",
        ),
    ]


def explained(clips: Sequence[Sequence[Block]], lead: str = "") -> Section:
    """Returns explained clips, two in a row.

    Args:
      clips: per clip its blocks, such as `html.video`, `html.photo` of a `contact_sheet.filmstrip`.
      lead: how they were chosen and explained.
    """
    return Section("Explained clips", [Columns(clips)] if clips else [], lead)


def steps(commands: Sequence[tuple[str, str]]) -> Section:
    """Returns the command of every step, as (purpose, command)."""
    return Section("Every step again", [Commands(commands)] if commands else [])


def environment(extra: Sequence[tuple[str, str]] = ()) -> Section:
    """Returns versions of Python and of the packages that matter, and what the caller adds."""
    rows = [("Python", platform.python_version()), ("platform", platform.platform(terse=True))]
    for package in _PACKAGES:
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    rows = [*rows, *extra]
    half = (len(rows) + 1) // 2
    tables = [[Table(("", "version"), part, numeric=False)] for part in (rows[:half], rows[half:])]
    return Section("Environment", [Columns(tables)])


def settings(config: Mapping[str, Any]) -> Section:
    """Returns the fields of config.json that decide what was trained."""
    rows = [
        (name, json.dumps(value).strip('"'))
        for name, value in flat_fields(config).items()
        if name.split(".")[0] not in ("classes", "preparation") and value not in ("", [], {}, None)
    ]
    half = (len(rows) + 1) // 2
    parts = rows[:half], rows[half:]
    tables = [[Table(("field", "value"), part, numeric=False)] for part in parts]
    return Section("Settings", [Columns(tables)])


def training_report(run_dir: str | Path) -> Path:
    """Writes RUN/report/index.html from the files of a run folder alone.

    Reads config.json, metrics.jsonl and evaluation/*/results.json; what is missing is left out.

    Raises:
      UserError: without config.json.
    """
    run_dir = Path(run_dir)
    file = run_dir / "config.json"
    if not file.is_file():
        raise UserError(f"{run_dir} is not a run folder: no config.json; give a --workdir of train")
    config = json.loads(file.read_text())
    records = read_metrics(run_dir / "metrics.jsonl")
    evaluations = {
        path.parent.name: json.loads(path.read_text())
        for path in sorted((run_dir / "evaluation").glob("*/results.json"))
    }
    ordered = [evaluations[s] for s in ("test", "validation", "train") if s in evaluations]
    data, target = config.get("data", {}), config.get("data", {}).get("target", "intended")
    dataset = config.get("preparation", {}).get("dataset", "")
    metadata = [
        ("model", str(config.get("model", {}).get("name", ""))),
        ("dataset", str(dataset)),
        ("protocol", f"{config.get('protocol')}, fold {data.get('fold')}"),
        ("labels", target),
        ("steps", str(records[-1]["step"]) if records else "0"),
    ]
    return write_report(
        run_dir / "report" / "index.html",
        " ".join(f"Training of {metadata[0][1]} on {metadata[1][1] or 'clips'}".split()),
        [
            *([summary(ordered[0])] if ordered else []),
            training(
                records,
                config.get("evaluation", {}).get("select", "validation/war"),
                config.get("protocol") != "random_actors_unknown",
            ),
            *(section(results) for results in ordered for section in (scores, controls)),
            meaning(config.get("classes", ()), target, dataset),
            settings(config),
            environment(),
        ],
        metadata=[(name, value) for name, value in metadata if value],
    )


def _estimate(entry):
    """Returns (value, interval) as text."""
    if entry["low"] is None:
        return _percent(entry["value"]), "no interval"
    return _percent(entry["value"]), f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}%"


def _span(entry):
    if entry["low"] is None:
        return "no interval"
    return f"{_points(entry['low'])} to {_points(entry['high'])}"


def _points(value):
    return "-" if value is None else f"{100 * value:+.1f}"


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}%"
