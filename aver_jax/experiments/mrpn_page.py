"""The page of the networks' comparison: tables, differences, confusions, features."""

from collections.abc import Sequence

import numpy as np

from aver_jax.experiments import facts, figures, tables, thesis
from aver_jax.experiments.grid import NETWORKS
from aver_jax.experiments.outcomes import Failure, Outcome, averaged_confusion, chosen
from aver_jax.experiments.page import Page
from aver_jax.experiments.published import add_published
from aver_jax.input import PROTOCOLS, Dataset
from aver_jax.report.figures import png
from data_prep.wording import counted

ROLES = {
    "audio": "audio: the sound alone: a CNN on spectrogram segments, an aggregator, a classifier",
    "video": "video: the face alone: a CNN on frames, an aggregator, a classifier",
    "late": "late fusion: the branches of those two, frozen, and a classifier of both",
    "n0": "N0: both branches and the fusion trained together, with the fusion's loss alone",
    "n1": "N1: N0 with a loss of each branch added",
    "n2": "N2 (MRPN): N1 with a residual perceptron in each branch",
}


def build_page(
    outcomes: Sequence[Outcome],
    failures: Sequence[Failure],
    dataset: Dataset,
    command: str,
    note: str = "",
) -> Page:
    """Returns the page of a finished table.

    Args:
      outcomes: of all finished cells. The first aggregator has the tables; the others are in the
        summary.
      failures: the cells that failed.
      dataset: what was tested.
      command: what was run.
      note: a line of facts about the data.
    """
    results = outcomes[0].results
    tested = np.unique(np.concatenate([o.rows for o in outcomes]))
    networks = [name for name in NETWORKS if chosen(outcomes, network=name)]
    aggregator = outcomes[0].cell.aggregator
    first = chosen(outcomes, aggregator=aggregator, variant="")
    where = (
        f"{tables.AGGREGATORS[aggregator]}; {dataset.name}, {results['protocol']}, "
        f"{results['target']} labels"
    )
    result = Page(f"Fusion networks on {dataset.name}")
    result.text(_facts(outcomes, dataset, tested, command, note))
    if failures:
        result.text(facts.missing(failures))
    result.text("\n".join(f"- {ROLES[network]}" for network in networks))
    _add_folds(result, first, where)
    if chosen(outcomes, variant=tables.WHOLE_CLIPS):
        _add_augmentation(result, chosen(outcomes, aggregator=aggregator), where)
    of_aggregators = tables.aggregator_differences(outcomes)
    _add_differences(result, first, where, len(of_aggregators[1]))
    result.section("Summary")
    result.text(
        "Pooled: the test clips of all folds and seeds together, with 95% intervals over actors."
    )
    where_all = where.partition("; ")[2]
    result.table(f"Networks and aggregators ({where_all})", *tables.summary(outcomes))
    result.table(
        f"WAR differences of aggregators in percentage points ({where_all})",
        *of_aggregators,
    )
    add_published(result, first, dataset, results["target"], tested)
    result.section("What is confused, and how the features lie")
    panels = [
        (NETWORKS[network], averaged_confusion(chosen(first, network=network)))
        for network in networks
    ]
    result.figure(
        "confusion",
        png(figures.confusion_panels(panels, results["classes"])),
        f"Confusion in percent of the true class, averaged over folds and seeds ({where})",
    )
    _add_features(result, first, where)
    result.section("Numbers")
    result.numbers("cells", cell_rows(outcomes))
    return result


def _add_folds(result: Page, first: Sequence[Outcome], where: str) -> None:
    results = first[0].results
    result.section("Networks by fold")
    result.text(
        "WAR: weighted average recall, the share of clips that are right; UAR: mean recall of the "
        "classes. A fold shows the mean over seeds; mean and standard deviation are over all folds "
        "and seeds."
    )
    for score in ("war", "uar"):
        caption = f"{score.upper()} by network and fold ({where})"
        result.table(caption, *tables.networks(first, results["protocol"], score))
    unknown = "" if results["dataset"] == "ravdess" else "; its splits are not published"
    number = "5.2" if results["dataset"] == "ravdess" else "5.3"
    head, rows = tables.thesis_folds(results["dataset"])
    result.table(f"As the thesis prints it (Table {number}{unknown})", head, rows)
    if rows:
        result.text(thesis.FOOTNOTE)


def _add_augmentation(result: Page, outcomes: Sequence[Outcome], where: str) -> None:
    results = outcomes[0].results
    result.section("Temporal augmentation")
    result.text(
        "AM, VM, JM: audio, video and joint modalities; T: trained on random slices of the clips, "
        "NT: on whole clips. Both are tested on whole clips."
    )
    caption = f"WAR without and with temporal augmentation ({where})"
    result.table(caption, *tables.modalities(outcomes, results["protocol"]))
    if results["dataset"] == "ravdess":
        result.table("As the thesis prints it (Table 5.1)", *tables.thesis_augmentation())


def _add_differences(result: Page, first: Sequence[Outcome], where: str, more: int) -> None:
    """Adds the differences of networks; `more` is the number of those of aggregators."""
    head, rows = tables.differences(first)
    # Each difference has two: higher, and no worse.
    verdicts = 2 * (len(rows) + more)
    result.section("Differences")
    if rows:
        result.text(tables.primary(first, f"all test clips ({where})"))
        result.text(
            f"{tables.HOW_DECIDED} The best single modality is chosen on these test clips, which "
            f"favours it. {tables.cautions(first, verdicts)}"
        )
    result.table(f"WAR differences in percentage points ({where})", head, rows)
    result.table(
        f"WAR of the branches by themselves ({where}); N1, N2: their side heads, late fusion: the "
        "classifiers of its frozen branches",
        *tables.opinions(first),
    )


def cell_rows(outcomes: Sequence[Outcome]) -> list[list[object]]:
    """One line per training, with a head."""
    head = [
        "network", "aggregator", "variant", "fold", "seed", "clips", "actors", "step", "war",
        "uar", "macro_f1", "loss", "seconds",
    ]  # fmt: skip
    rows: list[list[object]] = [head]
    for o in outcomes:
        scores = [o.results["metrics"][s]["value"] for s in ("war", "uar", "macro_f1", "loss")]
        cell = [o.cell.network, o.cell.aggregator, o.cell.variant, o.cell.fold, o.cell.seed]
        of_test = [o.results["clips"], o.results["actors"], o.results["step"]]
        rows.append([*cell, *of_test, *scores, o.seconds])
    return rows


def _facts(
    outcomes: Sequence[Outcome], dataset: Dataset, tested: np.ndarray, command: str, note: str
) -> str:
    results, actors = outcomes[0].results, dataset.index["actor"]
    folds = sorted({o.cell.fold for o in outcomes})
    dropped = results["dropped"]
    left_out = f"; {counted(dropped, 'clip')} without one left out" if dropped else ""
    count = PROTOCOLS.get(results["protocol"], PROTOCOLS["folder"])
    data = {
        "dataset": f"{dataset.name}, {counted(len(dataset), 'clip')} of "
        f"{counted(len(np.unique(actors)), 'actor')} prepared, {facts.skipped_of(dataset.path)} "
        f"skipped; classes {', '.join(dataset.classes)}",
        **({"note": note} if note else {}),
        "protocol": f"{results['protocol']}, folds {', '.join(map(str, folds))} of {count}",
        "tested": f"{counted(len(tested), 'clip')} of "
        f"{counted(len(np.unique(actors[tested])), 'actor')}, "
        f"{results['target']} labels{left_out}",
    }
    return facts.provenance(outcomes, data, command)


def _add_features(result: Page, first: Sequence[Outcome], where: str) -> None:
    """Adds the t-SNE figure of one fold, where its features were stored."""
    shown = [
        o
        for network in ("video", "audio", "n0", "n2")
        for o in chosen(first, network=network)
        if o.features is not None
    ]
    if not shown:
        return
    panels = [(NETWORKS[o.cell.network], figures.embedded(o.features), o.labels) for o in shown]
    fold, seed = shown[0].cell.fold, shown[0].cell.seed
    result.figure(
        "features",
        png(figures.feature_panels(panels, shown[0].results["classes"])),
        f"t-SNE of the deep features of the {len(shown[0].rows)} test clips of fold {fold}, "
        f"seed {seed}, by colour and mark the true class ({where})",
    )
