"""The page of the study of unclear clips: curves, differences, and a verdict on each claim."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from aver_jax.experiments import figures, page, tables, verdict
from aver_jax.experiments.corpora import CLEAR, Corpus, Rendering
from aver_jax.experiments.grid import NETWORKS
from aver_jax.experiments.mrpn_page import ROLES, cell_rows
from aver_jax.experiments.outcomes import Comparison, Outcome, chosen, pooled, spread
from aver_jax.experiments.page import Page
from aver_jax.report.figures import png
from data_prep.wording import counted

#: Kind of unclear clips -> (field of a corpus, the words for an axis).
KINDS = {"fuzzy": "fuzzy clips", "conflict": "clips whose face and voice conflict"}
_CLAIMS_OF = {"fuzzy": "fuzzy", "conflict": "conflicting"}


def only_clear(outcome: Outcome, conditions: Mapping[str, str], clear: bool = True) -> Outcome:
    """The outcome on the test clips that are clear, or on those that are not."""
    keep = np.array([(conditions[c] == CLEAR) == clear for c in outcome.clip_ids.tolist()], bool)
    names = ("rows", "labels", "predictions", "actors", "clip_ids")
    return dataclasses.replace(outcome, **{name: getattr(outcome, name)[keep] for name in names})


def build_page(
    outcomes: Sequence[Outcome],
    corpora: Sequence[Corpus],
    conditions: Mapping[str, Mapping[str, str]],
    rendering: Rendering,
    command: str,
) -> Page:
    """Returns the page of a finished study.

    Args:
      outcomes: of all cells; a cell's variant is its corpus' name.
      corpora: in the order of the tables.
      conditions: corpus -> clip id -> clear, fuzzy_face, fuzzy_voice or conflict.
      rendering: how the corpora were made.
      command: what was run.
    """
    clear = [only_clear(o, conditions[o.cell.variant]) for o in outcomes]
    unclear = [only_clear(o, conditions[o.cell.variant], clear=False) for o in outcomes]
    result = Page("Fusion networks and unclear clips")
    result.text(_facts(outcomes, corpora, conditions, rendering, command))
    result.text(
        "A fuzzy clip's face or voice shows nothing or a blend of two emotions, its label is in "
        "the other one; in a conflicting clip one of them shows another emotion, more weakly. "
        "Shares are of the clips that are not neutral: a neutral clip is always clear. Training "
        "and test clips have the same share."
    )
    networks = [name for name in NETWORKS if chosen(outcomes, network=name)]
    result.text("\n".join(f"- {ROLES[network]}" for network in networks))

    result.section("Verdict")
    _add_verdict(result, outcomes, clear, corpora)

    result.section("Scores")
    where = _where(outcomes)
    classes = outcomes[0].results["classes"]
    result.figure(
        "shares",
        png(figures.score_curves(_panels(outcomes, clear, corpora), chance=1 / len(classes))),
        f"WAR against the share of unclear clips: the mean over seeds and the range they span "
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
    some = [corpus for corpus in corpora if corpus.name != CLEAR]
    result.table(
        f"WAR on the clear and on the unclear test clips, all folds and seeds together ({where})",
        ["network", *(f"{c.name}: {part}" for c in some for part in ("clear", "unclear"))],
        [
            [
                NETWORKS[n],
                *(
                    _together(chosen(part, network=n, variant=c.name))
                    for c in some
                    for part in (clear, unclear)
                ),
            ]
            for n in networks
        ]
        if some
        else [],
    )
    result.section("Differences")
    result.text(
        "Paired: both networks on the same clips, folds and seeds, in percentage points of WAR. "
        "Over actors: bootstrap, whole actors resampled. Over seeds: Student's t of one difference "
        "per seed. The best single modality is chosen on the test clips of the same corpus."
    )
    for corpus in corpora:
        result.table(
            f"Corpus {corpus.name}, all test clips ({where})",
            *tables.differences(chosen(outcomes, variant=corpus.name)),
        )
    result.section("Numbers")
    result.numbers("cells", cell_rows(outcomes))
    return result


def comparisons_along(
    outcomes: Sequence[Outcome], corpora: Sequence[Corpus], kind: str
) -> dict[float, dict[tuple[str, str], Comparison]]:
    """Returns share -> (one, other) -> how they compare, along one kind of unclear clips."""
    return {
        share: tables.comparisons(chosen(outcomes, variant=name))
        for share, name in _along(corpora, kind).items()
    }


def _add_verdict(
    result: Page, outcomes: Sequence[Outcome], clear: Sequence[Outcome], corpora: Sequence[Corpus]
) -> None:
    result.text(
        "A claim that one network is at least as good as another *holds* where it scores higher "
        "and both 95% intervals of the paired difference, over actors and over seeds, leave out "
        "0; it *does not hold* where it scores lower and both leave out 0; else it is "
        f"*undecided*. {tables.cautions(outcomes)}"
    )
    for kind, word in _CLAIMS_OF.items():
        if len(_along(corpora, kind)) > (CLEAR in {c.name for c in corpora}):
            result.text(verdict.paragraph(word, comparisons_along(outcomes, corpora, kind)))
    for name, some in (("all test clips", outcomes), ("the clear test clips alone", clear)):
        of_corpus = {c.name: tables.comparisons(chosen(some, variant=c.name)) for c in corpora}
        rows = []
        for claim in verdict.CLAIMS:
            found = [of_corpus[c.name].get(claim.pair) for c in corpora]
            if any(found):
                rows.append(
                    [
                        claim.text,
                        *(
                            f"{verdict.judged(f)} ({page.points(f.value)})" if f else "-"
                            for f in found
                        ),
                    ]
                )
        result.table(
            f"Verdicts on {name}, and differences of WAR in percentage points ({_where(outcomes)})",
            ["claim", *(corpus.name for corpus in corpora)],
            rows,
        )


def _along(corpora: Sequence[Corpus], kind: str) -> dict[float, str]:
    """Returns share -> corpus along one kind; the clear corpus is the share 0 of both."""
    return {getattr(c, kind): c.name for c in corpora if getattr(c, kind) or c.name == CLEAR}


def _panels(
    outcomes: Sequence[Outcome], clear: Sequence[Outcome], corpora: Sequence[Corpus]
) -> dict[tuple[int, int], figures.Panel]:
    kinds = [kind for kind in KINDS if any(getattr(c, kind) for c in corpora)] or ["fuzzy"]
    networks = [name for name in NETWORKS if chosen(outcomes, network=name)]
    panels = {}
    for line, (name, some) in enumerate(
        (("all test clips", outcomes), ("clear test clips", clear))
    ):
        for column, kind in enumerate(kinds):
            series = {
                NETWORKS[network]: {
                    share: _by_seed(chosen(some, network=network, variant=corpus))
                    for share, corpus in _along(corpora, kind).items()
                }
                for network in networks
            }
            panels[line, column] = figures.Panel(
                title=name[0].upper() + name[1:],
                xlabel=f"share of {KINDS[kind]}",
                ylabel="WAR",
                series=series,
            )
    return panels


def _by_seed(outcomes: Sequence[Outcome]) -> list[float]:
    """The WAR of every seed, all its folds together."""
    values = []
    for seed in sorted({o.cell.seed for o in outcomes}):
        own = chosen(outcomes, seed=seed)
        hits = np.concatenate([o.predictions == o.labels for o in own])
        values.append(float(hits.mean()))
    return values


def _mean(outcomes: Sequence[Outcome]) -> str:
    return page.mean_and_deviation(*spread(outcomes)[:2])


def _together(outcomes: Sequence[Outcome]) -> str:
    if not sum(len(o.labels) for o in outcomes):
        return "-"
    return page.percent(pooled(outcomes).value)


def _where(outcomes: Sequence[Outcome]) -> str:
    results = outcomes[0].results
    folds = ", ".join(map(str, sorted({o.cell.fold for o in outcomes})))
    known = tables.AGGREGATORS[outcomes[0].cell.aggregator]
    return f"rendered clips, {results['protocol']} fold {folds}, {known}"


def _facts(
    outcomes: Sequence[Outcome],
    corpora: Sequence[Corpus],
    conditions: Mapping[str, Mapping[str, str]],
    rendering: Rendering,
    command: str,
) -> str:
    results, first = outcomes[0].results, chosen(outcomes, variant=corpora[0].name)
    tested = np.unique(np.concatenate([o.rows for o in first]))
    actors = np.unique(np.concatenate([o.actors for o in first]))
    unclear = ", ".join(
        f"{c.name} {sum(v != CLEAR for v in conditions[c.name].values())}" for c in corpora
    )
    return page.provenance(
        command,
        {
            "dataset": f"{len(corpora)} rendered {'corpus' if len(corpora) == 1 else 'corpora'} "
            f"of {counted(rendering.clips, 'clip')} and {counted(rendering.actors, 'actor')}, "
            f"frames of {rendering.size} pixels at {rendering.fps} per second, about "
            f"{rendering.seconds:g} s, face crops of {rendering.crop} pixels, seed "
            f"{rendering.seed}, classes {', '.join(results['classes'])}",
            "unclear clips": unclear,
            "protocol": f"{results['protocol']}, folds "
            f"{', '.join(map(str, sorted({o.cell.fold for o in outcomes})))}",
            "tested": f"{counted(len(tested), 'clip')} of {counted(len(actors), 'actor')} of each "
            f"corpus, {results['target']} labels",
            "checkpoint": "the best on validation clips; test clips choose nothing",
            "seeds": ", ".join(map(str, sorted({o.cell.seed for o in outcomes}))),
            "trainings": f"{len(outcomes)}, {sum(o.seconds for o in outcomes) / 3600:.2f} h "
            f"on {jax.devices()[0].device_kind}",
        },
    )
