"""The table that says how large a study would have to be."""

import math
from collections.abc import Iterable, Sequence

from aver_jax.experiments.pages import page, tables
from aver_jax.experiments.pages.page import Table
from aver_jax.experiments.stats.power import (
    actors_needed,
    cell_differences,
    components_of,
    smallest_difference,
)
from aver_jax.experiments.stats.predictions import ClipPredictions, best_single, chosen

#: The difference that a study should decide, and the seeds for which actors are counted.
AIM = 0.03
SEEDS = (3, 5, 10, 20)

Pair = tuple[str, Sequence[ClipPredictions], Sequence[ClipPredictions]]


def network_pairs(
    results: Sequence[ClipPredictions],
    differences: Iterable[tuple[str, str]] = tables.DIFFERENCES,
) -> list[Pair]:
    """Returns the differences of a page, (name, the one's predictions, the other's).

    Args:
      results: of one aggregator and variant.
      differences: of `tables.DIFFERENCES`.
    """
    single = best_single(results)
    pairs = []
    for one, other in differences:
        network = single if other == "best" else other
        name = f"best single ({single})" if other == "best" else tables.short(other)
        ones, others = chosen(results, network=one), chosen(results, network=network)
        pairs.append((f"{tables.short(one)} - {name}", ones, others))
    return pairs


def power_table(
    pairs: Iterable[Pair],
) -> Table:
    """Returns what a study of this size decides, and the actors that `AIM` needs.

    Args:
      pairs: (name, predictions of the one network, of the other). A pair with fewer than 2 actors
        or seeds in common has no row: nothing tells what another would change.
    """
    rows = []
    for name, ones, others in pairs:
        differences = cell_differences(ones, others)
        components = components_of(differences)
        if components is None:
            continue
        actors, seeds = differences.shape
        smallest = smallest_difference(components, actors, seeds)
        needed = [actors_needed(components, AIM, count) for count in SEEDS]
        rows.append(
            [
                name,
                *(f"{100 * math.sqrt(variance):.1f}" for variance in components),
                f"{actors} x {seeds}",
                "-" if smallest is None else page.points(smallest).lstrip("+"),
                *("-" if count is None else str(count) for count in needed),
            ]
        )
    head = ["difference", "SD: actor", "seed", "rest", "actors x seeds", "decided from"]
    return Table([*head, *(f"actors with {count} seeds" for count in SEEDS)], rows)
