"""The page of the study of unclear clips: curves, differences, and a verdict on each claim."""

from collections.abc import Mapping, Sequence

import numpy as np

from aver_jax.evaluation import metrics
from aver_jax.experiments import facts, figures, page, tables, verdict
from aver_jax.experiments.corpora import (
    CLEAR,
    CONDITIONS,
    PARTS,
    Contents,
    Corpus,
    Rendering,
    clear_in_all,
)
from aver_jax.experiments.grid import NETWORKS
from aver_jax.experiments.mrpn_page import ROLES, cell_rows
from aver_jax.experiments.outcomes import (
    Answers,
    Comparison,
    Failure,
    Outcome,
    Statistic,
    chosen,
    pooled,
    spread,
)
from aver_jax.experiments.page import Page
from aver_jax.report.figures import png
from data_prep.wording import counted

#: Kind of unclear clips -> (field of a corpus, the words for an axis).
KINDS = {"fuzzy": "fuzzy clips", "conflict": "clips whose face and voice conflict"}
_CLAIMS_OF = {"fuzzy": "fuzzy", "conflict": "conflicting"}
_NEUTRAL = "NEU"


def among_clips(outcome: Outcome, clips: frozenset[str]) -> Answers:
    """The answers to some of the test clips."""
    return outcome.among(np.array([clip in clips for clip in outcome.clip_ids.tolist()], bool))


def not_neutral(outcome: Outcome, contents: Contents, clear: bool) -> Answers:
    """The answers to the clear, or to the unclear, of the test clips that are not neutral.

    Neutral clips are always clear: with them the two would have different classes.
    """
    condition = np.array([contents.condition[c] for c in outcome.clip_ids.tolist()], str)
    classes = np.array(outcome.classes, str)
    return outcome.among(((condition == CLEAR) == clear) & (classes[outcome.labels] != _NEUTRAL))


def build_page(
    outcomes: Sequence[Outcome],
    failures: Sequence[Failure],
    corpora: Sequence[Corpus],
    contents: Mapping[str, Contents],
    rendering: Rendering,
    command: str,
) -> Page:
    """Returns the page of a finished study.

    Args:
      outcomes: of all finished cells; a cell's variant is its corpus' name.
      failures: the cells that failed.
      corpora: in the order of the tables.
      contents: corpus -> what it holds.
      rendering: how the corpora were made.
      command: what was run.
    """
    shared = clear_in_all(contents)
    same = [among_clips(o, shared) for o in outcomes]
    where = _where(outcomes)
    result = Page("Fusion networks and unclear clips")
    result.text(_facts(outcomes, corpora, contents, rendering, command))
    if failures:
        result.text(facts.missing(failures))
    result.text(
        "A fuzzy clip's face or voice shows nothing or a blend of two emotions, its label is in "
        "the other one; in a conflicting clip one of them shows another emotion, more weakly. "
        "Shares are of the clips of a whole corpus that are not neutral: a neutral clip is always "
        "clear. The parts of a fold are dealt by actor, so that their shares are near that, not "
        "equal to it; the last table has the numbers. "
        f"{_same_clips(outcomes, shared)}"
    )
    networks = [name for name in NETWORKS if chosen(outcomes, network=name)]
    result.text("\n".join(f"- {ROLES[network]}" for network in networks))

    result.section("Verdict")
    _add_verdict(result, outcomes, same, corpora)

    result.section("Scores")
    result.figure(
        "shares",
        png(figures.score_curves(_panels(outcomes, same, corpora))),
        "Scores against the share of unclear clips: the mean over seeds and the range they span; "
        f"above WAR on all test clips, below UAR on the clips that are clear in every corpus "
        f"({where})",
    )
    result.table(
        f"WAR on all test clips, mean ± SD over folds and seeds ({where})",
        ["network", *(corpus.name for corpus in corpora)],
        [
            [NETWORKS[n], *(_mean(chosen(outcomes, network=n, variant=c.name)) for c in corpora)]
            for n in networks
        ],
    )
    _add_parts(result, outcomes, corpora, contents)
    result.section("Differences")
    result.text(
        f"{tables.HOW_DECIDED} The best single modality is chosen on the test clips of the same "
        "corpus, which favours it."
    )
    for corpus in corpora:
        result.table(
            f"Corpus {corpus.name}, WAR on all test clips ({where})",
            *tables.differences(chosen(outcomes, variant=corpus.name)),
        )
    result.section("Numbers")
    result.table(
        f"Clips of each corpus by fold: {' / '.join(CONDITIONS)}",
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
    )
    result.numbers("cells", cell_rows(outcomes))
    return result


def comparisons_along(
    outcomes: Sequence[Answers], corpora: Sequence[Corpus], kind: str
) -> dict[float, dict[tuple[str, str], Comparison]]:
    """Returns share -> (one, other) -> how they compare, along one kind of unclear clips."""
    return {
        share: tables.comparisons(chosen(outcomes, variant=name))
        for share, name in _along(corpora, kind).items()
    }


def _add_verdict(
    result: Page, outcomes: Sequence[Outcome], same: Sequence[Answers], corpora: Sequence[Corpus]
) -> None:
    where = _where(outcomes)
    names = [corpus.name for corpus in corpora]
    together = " and ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0]
    sets: list[tuple[str, Sequence[Answers], Statistic]] = [
        ("WAR on all test clips", outcomes, metrics.war),
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
    verdicts = 2 * (1 + len(printed))
    result.text(tables.primary(outcomes, f"all test clips of {together} together ({where})"))
    result.text(
        "A claim that one network scores higher than another *holds* where the 95% interval of the "
        "paired difference, over actors and seeds, lies above 0; it *does not hold* where it lies "
        f"below 0; else it is *undecided*. {tables.cautions(outcomes, verdicts)}"
    )
    for kind, word in _CLAIMS_OF.items():
        if len(_along(corpora, kind)) > (CLEAR in names):
            result.text(verdict.paragraph(word, comparisons_along(outcomes, corpora, kind)))
    for (text, _, _), of_set in zip(sets, found, strict=True):
        rows = []
        for claim in verdict.CLAIMS:
            comparisons = [of_set[name].get(claim.pair) for name in names]
            if any(comparisons):
                rows.append([claim.text, *map(verdict.cell, comparisons)])
        result.table(
            f"{text}. {verdict.LEGEND} in percentage points ({where})", ["claim", *names], rows
        )


def _add_parts(
    result: Page,
    outcomes: Sequence[Outcome],
    corpora: Sequence[Corpus],
    contents: Mapping[str, Contents],
) -> None:
    some = [corpus for corpus in corpora if corpus.name != CLEAR]
    networks = [name for name in NETWORKS if chosen(outcomes, network=name)]
    parts = [
        [not_neutral(o, contents[o.cell.variant], clear) for o in outcomes]
        for clear in (True, False)
    ]
    result.table(
        "WAR on the test clips that are not neutral, the clear and the unclear ones apart, all "
        f"folds and seeds together ({_where(outcomes)})",
        ["network", *(f"{c.name}: {part}" for c in some for part in ("clear", "unclear"))],
        [
            [
                NETWORKS[network],
                *(
                    _together(chosen(part, network=network, variant=corpus.name))
                    for corpus in some
                    for part in parts
                ),
            ]
            for network in networks
        ]
        if some
        else [],
    )


def _along(corpora: Sequence[Corpus], kind: str) -> dict[float, str]:
    """Returns share -> corpus along one kind; the clear corpus is the share 0 of both."""
    return {getattr(c, kind): c.name for c in corpora if getattr(c, kind) or c.name == CLEAR}


def _panels(
    outcomes: Sequence[Outcome], same: Sequence[Answers], corpora: Sequence[Corpus]
) -> dict[tuple[int, int], figures.Panel]:
    kinds = [kind for kind in KINDS if any(getattr(c, kind) for c in corpora)] or ["fuzzy"]
    networks = [name for name in NETWORKS if chosen(outcomes, network=name)]
    lines: list[tuple[str, str, Sequence[Answers], Statistic]] = [
        ("All test clips", "WAR", outcomes, metrics.war)
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


def _by_seed(answers: Sequence[Answers], statistic: Statistic) -> list[float]:
    """The score of every seed, all its folds together."""
    values = []
    for seed in sorted({o.cell.seed for o in answers}):
        own = [o for o in chosen(answers, seed=seed) if len(o.rows)]
        if own:
            labels, predictions = (
                np.concatenate([getattr(o, name) for o in own])
                for name in ("labels", "predictions")
            )
            counts = metrics.confusion_matrix(labels, predictions, len(own[0].classes))
            values.append(float(statistic(counts)))
    return values


def _mean(outcomes: Sequence[Outcome]) -> str:
    return page.mean_and_deviation(*spread(outcomes)[:2])


def _together(answers: Sequence[Answers]) -> str:
    if not sum(len(o.labels) for o in answers):
        return "-"
    return page.percent(pooled(answers).value)


def _where(outcomes: Sequence[Outcome]) -> str:
    results = outcomes[0].results
    folds = ", ".join(map(str, sorted({o.cell.fold for o in outcomes})))
    known = tables.AGGREGATORS[outcomes[0].cell.aggregator]
    return f"rendered clips, {results['protocol']} fold {folds}, {known}"


def _same_clips(outcomes: Sequence[Outcome], shared: frozenset[str]) -> str:
    """How many tested clips are clear in every corpus, in words."""
    label = {
        clip: o.classes[number]
        for o in outcomes
        for clip, number in zip(o.clip_ids.tolist(), o.labels.tolist(), strict=True)
        if clip in shared
    }
    neutral = sum(name == _NEUTRAL for name in label.values())
    return (
        f"{counted(len(label), 'tested clip')} are clear in every corpus, {neutral} of them "
        "neutral: on these, the same ones at every share, a score tells what the training on "
        "unclear clips does; UAR counts every class alike."
    )


def _facts(
    outcomes: Sequence[Outcome],
    corpora: Sequence[Corpus],
    contents: Mapping[str, Contents],
    rendering: Rendering,
    command: str,
) -> str:
    results = outcomes[0].results
    tested = np.unique(np.concatenate([o.clip_ids for o in outcomes]))
    actors = np.unique(np.concatenate([o.actors for o in outcomes]))

    def of_each(text):
        return ", ".join(f"{corpus.name} {text(contents[corpus.name])}" for corpus in corpora)

    def unclear(held):
        return sum(name != CLEAR for name in held.condition.values())

    data = {
        "dataset": f"{len(corpora)} rendered {'corpus' if len(corpora) == 1 else 'corpora'} of "
        f"{counted(rendering.clips, 'clip')} and {counted(rendering.actors, 'actor')}, frames of "
        f"{rendering.size} pixels at {rendering.fps} per second, about {rendering.seconds:g} s, "
        f"face crops of {rendering.crop} pixels, seed {rendering.seed}, classes "
        f"{', '.join(results['classes'])}",
        "prepared clips": of_each(lambda held: f"{held.prepared} ({held.skipped} skipped)"),
        "unclear clips": of_each(unclear),
        "protocol": f"{results['protocol']}, folds "
        f"{', '.join(map(str, sorted({o.cell.fold for o in outcomes})))}",
        "tested": f"{counted(len(tested), 'clip')} of {counted(len(actors), 'actor')} of each "
        f"corpus, {results['target']} labels",
    }
    return facts.provenance(outcomes, data, command)
