"""The audit as a page: tables, and pictures of what the linear models go by."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aver_jax.audit import baselines
from aver_jax.audit.features import SPECTRUM, SPECTRUM_WINDOW, STILL, rgb
from aver_jax.audit.stored import best_baseline, folds_in_words
from aver_jax.input import Dataset
from aver_jax.report import figures
from aver_jax.report.contact_sheet import contact_sheet
from aver_jax.report.html import (
    Columns,
    Picture,
    Section,
    Table,
    Text,
    Tiles,
    drawn,
    photo,
    write_report,
)
from aver_jax.report.intervals import percent_with_interval

_SIDE = 24
_RATE = 16_000
_LISTED, _SHOWN = 100, 6  # pairs of clips


def write_page(
    path: Path,
    audit: Mapping[str, Any],
    dataset: Dataset,
    table: Mapping[str, np.ndarray],
    labels: np.ndarray,
) -> Path:
    """Writes the page and returns its path.

    Args:
      path: of the HTML file.
      audit: of `audit.audited`.
      dataset: that was audited.
      table: feature -> float32 [n, D] of the audited clips.
      labels: int [n] of these clips.
    """
    return write_report(
        path,
        f"Audit of {audit['dataset']}",
        [_summary(audit), _baselines(audit), _used(audit, table, labels), _leaks(audit),
         _parts(audit, dataset)],
        subtitle=f"{audit['clips']} clips of {audit['actors'] or 'unknown'} actors, "
        f"{audit['target']} labels, "
        f"protocol {audit['protocol']}",
    )  # fmt: skip


def _summary(audit) -> Section:
    tiles = []
    best = best_baseline(audit)
    shown = {"best of all": best} | {
        group: max(entries, key=lambda entry: entry["value"])
        for group in ("picture", "sound", "level", "table")
        if (entries := [entry for entry in audit["baselines"] if entry["group"] == group])
    }
    for words, entry in shown.items():
        tiles.append(
            (words, f"{100 * entry['value']:.1f}%", f"{entry['model']} on {entry['name']}")
        )
    tiles.append(("always the same answer", f"{100 * audit['chance']:.1f}%", "chance"))
    return Section(
        "What trivial models reach",
        [Tiles(tiles)],
        "A score means something only by its distance from these.",
    )


def _baselines(audit) -> Section:
    names = list(dict.fromkeys(entry["name"] for entry in audit["baselines"]))
    rows = []
    for name in names:
        both = [entry for entry in audit["baselines"] if entry["name"] == name]
        rows.append((name, both[0]["group"], *map(percent_with_interval, both)))
    resampled = "actors" if audit["actors_known"] else "clips"
    notes = [f"{folds_in_words(audit)}; intervals resample {resampled}."]
    if not audit["has_sound"]:
        notes.append("This dataset has no sound; its baselines are left out.")
    columns = ("features", "group", "logistic regression", "SVM")
    return Section("Every baseline", [Table(columns, rows, text_columns=2), Text(notes)])


def _used(audit, table, labels) -> Section:
    """Returns what logistic regression goes by: weights on the still, and over frequency."""
    weights, numbers = _coefficients(table[STILL], labels)
    names = [audit["classes"][number] for number in numbers]
    means = [table[STILL][labels == number].mean(0) for number in numbers]
    columns = [[drawn(partial(_weights_on_still, means, weights, names),
                      "Above: the mean still of a class. Below: weights of the linear model; red "
                      "speaks for the class where the picture is brighter, blue where it is "
                      "darker.")]]  # fmt: skip
    if SPECTRUM in table:
        columns.append(
            [drawn(partial(_weights_on_spectrum, _coefficients(table[SPECTRUM], labels)[0], names),
                   "Weights over frequency: above 0, more power there speaks for the class.")]
        )  # fmt: skip
    return Section(
        "What the linear models go by",
        [Columns(columns)],
        "Fitted to all clips. Where a weight map looks like a part of the face, the still tells "
        "the emotion there.",
    )


def _coefficients(x, labels) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights [classes, D] of the standardised features, and the classes' numbers."""
    model = baselines.models()["logistic regression"]
    regression = baselines.fitted(model, x, labels)[-1]
    weights = regression.coef_
    if len(weights) == 1:  # two classes share one row
        weights = np.concatenate([-weights, weights])
    return weights, regression.classes_


def _weights_on_still(means, weights, names, theme: figures.Theme) -> figures.Figure:
    with figures.themed(theme):
        figure = figures.new_figure(1.15 * len(names), 2.7)
        axes = figure.subplots(2, len(names), squeeze=False)
        limit = np.abs(weights).max() or 1.0
        for column, name in enumerate(names):
            own = weights[column].reshape(_SIDE, _SIDE)
            axes[0, column].imshow(means[column].reshape(_SIDE, _SIDE), cmap="gray")
            axes[1, column].imshow(own, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes[0, column].set_title(name)
            for one in axes[:, column]:
                one.set_axis_off()
    return figure


def _weights_on_spectrum(weights, names, theme: figures.Theme) -> figures.Figure:
    hertz = np.fft.rfftfreq(SPECTRUM_WINDOW, 1 / _RATE)
    smooth = np.ones(7) / 7
    with figures.themed(theme):
        figure = figures.new_figure(5.4, 3.2)
        axes = figure.subplots()
        for own, name in zip(weights, names, strict=True):
            axes.plot(hertz / 1000, np.convolve(own, smooth, "same"), label=name)
        axes.axhline(0, linewidth=0.8, alpha=0.5)
        axes.set_xlabel("kHz")
        axes.set_ylabel("weight")
        axes.legend(ncols=3, frameon=False)
    return figure


def _leaks(audit) -> Section:
    rows = [
        (leak["told"], leak["by"], percent_with_interval(leak), f"{100 * leak['chance']:.1f}%")
        for leak in audit["leaks"]
    ]
    return Section(
        "What else they tell",
        [Table(("told", "by", "accuracy", "chance"), rows, text_columns=2)] if rows else [],
        "Emotion: what somebody scores who knows the actor and that actor's most frequent label, "
        "counted on all clips. The others: logistic regression on the same features; the actor is "
        "told among clips of all actors, sex and sentence on actors that the model has not seen.",
    )


def _parts(audit, dataset) -> Section:
    rows = [(part, *counts.values()) for part, counts in audit["balance"].items()]
    shared = audit["shared_actors"]
    notes = [f"{pair} share {len(names)} actors." for pair, names in shared.items()]
    notes = notes or [
        "No actor is in two parts." if audit["actors_known"] else "No actor is known."
    ]
    blocks = [Table(("part", *audit["classes"]), rows), Text(notes)]
    pairs = [(*pair["clips"], " and ".join(pair["parts"]), pair["alike"])
             for pair in audit["duplicates"]]  # fmt: skip
    if pairs:
        columns = ("clip", "alike", "parts", "what is alike")
        title = f"Clips that are there twice: {len(pairs)} pairs"
        title += f", of which {_LISTED} are listed" if len(pairs) > _LISTED else ""
        blocks.append(Table(columns, pairs[:_LISTED], title, numeric=False))
        blocks.append(_side_by_side(audit["duplicates"][:_SHOWN], dataset))
    else:
        blocks.append(Text(["No two clips are alike."]))
    return Section("Parts of the protocol, fold 1", blocks)


def _side_by_side(pairs, dataset: Dataset) -> Picture:
    """Returns the middle frames of pairs of clips, each pair in two pictures."""
    rows = {str(name): row for row, name in enumerate(dataset.index["clip_id"])}
    pictures, captions = [], []
    for pair in pairs:
        for clip, part in zip(pair["clips"], pair["parts"], strict=True):
            record = dataset.source[rows[clip]]
            frame = rgb(record, len(record["frames"]) // 2)
            pictures.append(frame.astype(np.uint8))
            captions.append(f"{clip}, {part}")
    return photo(
        contact_sheet(pictures, captions, columns=4, side=190),
        "Middle frames of the first pairs, beside each other.",
    )
