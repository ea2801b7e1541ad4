"""The page of the study of unclear clips: curves, differences, and a verdict on each claim."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aver_jax.evaluation import metrics
from aver_jax.experiments.corpora import (
    CLEAR,
    CONDITIONS,
    PARTS,
    Contents,
    Corpus,
    Rendering,
    clear_in_all,
)
from aver_jax.experiments.grid.trainings import NETWORKS
from aver_jax.experiments.pages import figures, page, provenance, tables, verdict
from aver_jax.experiments.pages.page import Page, Table
from aver_jax.experiments.pages.power import network_pairs, power_table
from aver_jax.experiments.stats.predictions import (
    CellResult,
    ClipPredictions,
    Comparison,
    Failure,
    Statistic,
    chosen,
    pooled,
    spread,
)
from aver_jax.report.figures import png
from data_prep.wording import counted

#: Kind of unclear clips -> (field of a corpus, the words for an axis).
KINDS = {"fuzzy": "fuzzy clips", "conflict": "clips whose face and voice conflict"}
_CLAIMS_OF = {"fuzzy": "fuzzy", "conflict": "conflicting"}
_NEUTRAL = "NEU"


def among_clips(result: CellResult, clips: frozenset[str]) -> ClipPredictions:
    """Returns the predictions for some of the test clips."""
    return result.among(np.array([clip in clips for clip in result.clip_ids.tolist()], bool))


def not_neutral(result: CellResult, contents: Contents, clear: bool) -> ClipPredictions:
    """Returns the predictions for the clear, or the unclear, test clips that are not neutral.

    Neutral clips are always clear: with them the two would have different classes.
    """
    condition = np.array([contents.condition[c] for c in result.clip_ids.tolist()], str)
    classes = np.array(result.classes, str)
    return result.among(((condition == CLEAR) == clear) & (classes[result.labels] != _NEUTRAL))


def build_page(
    results: Sequence[CellResult],
    failures: Sequence[Failure],
    corpora: Sequence[Corpus],
    contents: Mapping[str, Contents],
    rendering: Rendering,
    command: str,
) -> Page:
    """Returns the page of a finished study.

    Args:
      results: of all finished cells; a cell's variant is its corpus' name.
      failures: the cells that failed.
      corpora: in the order of the tables.
      contents: corpus -> what it holds.
      rendering: how the corpora were made.
      command: what was run.
    """
    shared = clear_in_all(contents)
    same = [among_clips(o, shared) for o in results]
    names = [corpus.name for corpus in corpora]
    networks = [name for name in NETWORKS if chosen(results, network=name)]
    context = {
        "data": _data(results, corpora, contents, rendering),
        "trainings": provenance.trainings(results),
        "command": command,
        "failures": provenance.missing(failures),
        "same": _same_clips(results, shared),
        "networks": networks,
        "where": _where(results),
        "together": " and ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0],
        "primary": tables.primary(results),
        "tested": provenance.tested(results),
        **_claims(results, same, corpora),
        "scores": Table(
            ["network", *names],
            [
                [
                    NETWORKS[n],
                    *(_mean(chosen(results, network=n, variant=name)) for name in names),
                ]
                for n in networks
            ],
        ),
        "by_clarity": _by_clarity(results, corpora, contents),
        "differences": {name: tables.differences(chosen(results, variant=name)) for name in names},
        "power": power_table(
            (f"{name}: {pair}", ones, others)
            for name in names
            for pair, ones, others in network_pairs(chosen(results, variant=name), [tables.PRIMARY])
        ),
        "conditions": CONDITIONS,
        "corpus_clips": Table(
            ["corpus, fold", *PARTS],
            [
                [
                    f"{corpus.name}, fold {fold}",
                    *(" / ".join(map(str, parts[fold, part].values())) for part in PARTS),
                ]
                for corpus in corpora
                for parts in [contents[corpus.name].parts]
                for fold in sorted({fold for fold, _ in parts})
            ],
        ),
    }
    shares = png(figures.score_curves(_panels(results, same, corpora)))
    return Page(
        "fuzzy_study.md.jinja",
        context,
        {"shares": shares},
        {"cells": tables.run_rows(results)},
    )


def comparisons_along(
    results: Sequence[ClipPredictions], corpora: Sequence[Corpus], kind: str
) -> dict[float, dict[tuple[str, str], Comparison]]:
    """Returns share -> (one, other) -> how they compare, along one kind of unclear clips."""
    return {
        share: tables.comparisons(chosen(results, variant=name))
        for share, name in _along(corpora, kind).items()
    }


def _claims(
    results: Sequence[CellResult], same: Sequence[ClipPredictions], corpora: Sequence[Corpus]
) -> dict[str, Any]:
    """Returns what the page says of each claim, and how many verdicts it has."""
    names = [corpus.name for corpus in corpora]
    sets: list[tuple[str, Sequence[ClipPredictions], Statistic]] = [
        ("WAR on all test clips", results, metrics.war),
        ("UAR on the test clips that are clear in every corpus", same, metrics.uar),
    ]
    found = [
        {name: tables.comparisons(chosen(some, variant=name), score) for name in names}
        for _, some, score in sets
    ]
    # Each difference has two: higher, and no worse. Of all test clips every one is on the page,
    # of the others those with a claim.
    claimed = {claim.pair for claim in verdict.CLAIMS}
    printed = [pair for of_one in found[0].values() for pair in of_one]
    printed += [pair for of_one in found[1].values() for pair in of_one if pair in claimed]
    paragraphs = [
        verdict.paragraph(word, comparisons_along(results, corpora, kind))
        for kind, word in _CLAIMS_OF.items()
        if len(_along(corpora, kind)) > (CLEAR in names)
    ]
    claim_tables = []
    for (text, _, _), of_set in zip(sets, found, strict=True):
        rows = []
        for claim in verdict.CLAIMS:
            comparisons = [of_set[name].get(claim.pair) for name in names]
            if any(comparisons):
                rows.append([claim.text, *map(verdict.cell, comparisons)])
        claim_tables.append((text, Table(["claim", *names], rows)))
    return {
        "verdicts": 2 * (1 + len(printed)),
        "verdict_paragraphs": paragraphs,
        "claim_tables": claim_tables,
    }


def _by_clarity(
    results: Sequence[CellResult], corpora: Sequence[Corpus], contents: Mapping[str, Contents]
) -> Table:
    """Returns the WAR on the clear and on the unclear clips that are not neutral."""
    some = [corpus for corpus in corpora if corpus.name != CLEAR]
    networks = [name for name in NETWORKS if some and chosen(results, network=name)]
    halves = [
        [not_neutral(o, contents[o.cell.variant], clear) for o in results]
        for clear in (True, False)
    ]
    rows = [
        [
            NETWORKS[network],
            *(
                _together(chosen(half, network=network, variant=corpus.name))
                for corpus in some
                for half in halves
            ),
        ]
        for network in networks
    ]
    head = [f"{corpus.name}: {half}" for corpus in some for half in ("clear", "unclear")]
    return Table(["network", *head], rows)


def _along(corpora: Sequence[Corpus], kind: str) -> dict[float, str]:
    """Returns share -> corpus along one kind; the clear corpus is the share 0 of both."""
    return {getattr(c, kind): c.name for c in corpora if getattr(c, kind) or c.name == CLEAR}


def _panels(
    results: Sequence[CellResult], same: Sequence[ClipPredictions], corpora: Sequence[Corpus]
) -> dict[tuple[int, int], figures.Panel]:
    kinds = [kind for kind in KINDS if any(getattr(c, kind) for c in corpora)] or ["fuzzy"]
    networks = [name for name in NETWORKS if chosen(results, network=name)]
    lines: list[tuple[str, str, Sequence[ClipPredictions], Statistic]] = [
        ("All test clips", "WAR", results, metrics.war)
    ]
    if any(len(o.rows) for o in same):
        lines.append(("Clear in every corpus", "UAR", same, metrics.uar))
    panels = {}
    for line, (title, score, some, statistic) in enumerate(lines):
        for column, kind in enumerate(kinds):
            series = {}
            for network in networks:
                values = {
                    share: _by_seed(chosen(some, network=network, variant=corpus), statistic)
                    for share, corpus in _along(corpora, kind).items()
                }
                series[NETWORKS[network]] = {x: v for x, v in values.items() if v}
            panels[line, column] = figures.Panel(
                title=title,
                xlabel=f"share of {KINDS[kind]}",
                ylabel=score,
                series={name: values for name, values in series.items() if values},
            )
    return panels


def _by_seed(found: Sequence[ClipPredictions], statistic: Statistic) -> list[float]:
    """Returns the score of every seed, all its folds together."""
    values = []
    for seed in sorted({o.cell.seed for o in found}):
        own = [o for o in chosen(found, seed=seed) if len(o.rows)]
        if own:
            labels, predictions = (
                np.concatenate([getattr(o, name) for o in own])
                for name in ("labels", "predictions")
            )
            counts = metrics.confusion_matrix(labels, predictions, len(own[0].classes))
            values.append(float(statistic(counts)))
    return values


def _mean(results: Sequence[CellResult]) -> str:
    return page.mean_and_std(*spread(results)[:2])


def _together(found: Sequence[ClipPredictions]) -> str:
    if not sum(len(o.labels) for o in found):
        return "-"
    return page.percent(pooled(found).value)


def _where(results: Sequence[CellResult]) -> str:
    evaluation = results[0].evaluation
    folds = ", ".join(map(str, sorted({o.cell.fold for o in results})))
    known = tables.AGGREGATORS[results[0].cell.aggregator]
    return f"rendered clips, {evaluation['protocol']} fold {folds}, {known}"


def _same_clips(results: Sequence[CellResult], shared: frozenset[str]) -> dict[str, int]:
    """Returns how many tested clips are clear in every corpus, and how many of them neutral."""
    label = {
        clip: o.classes[number]
        for o in results
        for clip, number in zip(o.clip_ids.tolist(), o.labels.tolist(), strict=True)
        if clip in shared
    }
    neutral = sum(name == _NEUTRAL for name in label.values())
    return {"clips": len(label), "neutral": neutral}


def _data(
    results: Sequence[CellResult],
    corpora: Sequence[Corpus],
    contents: Mapping[str, Contents],
    rendering: Rendering,
) -> dict[str, str]:
    """Returns name -> what was tested, in words."""
    evaluation = results[0].evaluation
    tested = np.unique(np.concatenate([o.clip_ids for o in results]))
    actors = np.unique(np.concatenate([o.actors for o in results]))

    def of_each(text):
        return ", ".join(f"{corpus.name} {text(contents[corpus.name])}" for corpus in corpora)

    def unclear(held):
        return sum(name != CLEAR for name in held.condition.values())

    return {
        "dataset": f"{len(corpora)} rendered {'corpus' if len(corpora) == 1 else 'corpora'} of "
        f"{counted(rendering.clips, 'clip')} and {counted(rendering.actors, 'actor')}, frames of "
        f"{rendering.size} pixels at {rendering.fps} per second, about {rendering.seconds:g} s, "
        f"face crops of {rendering.crop} pixels, seed {rendering.seed}, classes "
        f"{', '.join(evaluation['classes'])}",
        "prepared clips": of_each(lambda held: f"{held.prepared} ({held.skipped} skipped)"),
        "unclear clips": of_each(unclear),
        "protocol": f"{evaluation['protocol']}, folds "
        f"{', '.join(map(str, sorted({o.cell.fold for o in results})))}",
        "tested": f"{counted(len(tested), 'clip')} of {counted(len(actors), 'actor')} of each "
        f"corpus, {evaluation['target']} labels",
        "best trivial baseline": _trivial(corpora, contents),
    }


def _trivial(corpora: Sequence[Corpus], contents: Mapping[str, Contents]) -> str:
    """Returns what trivial models reach on each corpus; said once where it is the same of all."""
    found = {corpus.name: contents[corpus.name].trivial for corpus in corpora}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{name}: {told}" for name, told in found.items())
