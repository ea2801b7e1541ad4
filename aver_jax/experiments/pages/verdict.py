"""What a study of unclear clips says of each claim: as much as its intervals carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aver_jax.experiments.pages.page import percent, points
from aver_jax.experiments.stats.predictions import Comparison


@dataclass(frozen=True)
class Claim:
    """That one network scores higher than another; `pair` is one of `tables.DIFFERENCES`."""

    text: str
    pair: tuple[str, str]


CLAIMS = (
    Claim("N1 > N0", ("n1", "n0")),
    Claim("N2 > N1", ("n2", "n1")),
    Claim("N2 > N0", ("n2", "n0")),
    Claim("N2 > late fusion", ("n2", "late")),
    Claim("N0 > best single modality", ("n0", "best")),
    Claim("N2 > best single modality", ("n2", "best")),
)
HOLDS, FAILS, UNDECIDED = "holds", "does not hold (lower)", "undecided"
_WORDS = {True: HOLDS, False: FAILS, None: UNDECIDED}
_NO_WORSE = {True: "no worse", False: "worse", None: "undecided"}


def judged(comparison: Comparison) -> str:
    """Returns whether the claim that the one scores higher than the other holds."""
    return _WORDS[comparison.higher]


def cell(comparison: Comparison | None) -> str:
    """Returns both verdicts and the difference, "-" where there is none."""
    if comparison is None:
        return "-"
    no_worse = _NO_WORSE[comparison.no_worse]
    return f"{judged(comparison)}; {no_worse} ({points(comparison.value)})"


def paragraph(kind: str, found: Mapping[float, Mapping[tuple[str, str], Comparison]]) -> str:
    """Returns the verdicts along one kind of unclear clips, a sentence per claim.

    Args:
      kind: "fuzzy" or "conflicting".
      found: share -> (one, other) -> how they compare.
    """
    sentences = []
    for claim in CLAIMS:
        shares: dict[str, list[float]] = {}
        for share, comparisons in sorted(found.items()):
            if claim.pair in comparisons:
                shares.setdefault(judged(comparisons[claim.pair]), []).append(share)
        if not shares:
            continue
        if len(shares) == 1:
            (word, everywhere) = next(iter(shares.items()))
            where = "at every share" if len(everywhere) > 1 else f"at {_listed(everywhere)}"
            parts = [f"{_verb(word)} {where}"]
        else:
            parts = [
                f"{_verb(word)} at {_listed(shares[word])}"
                for word in (HOLDS, FAILS, UNDECIDED)
                if word in shares
            ]
        sentences.append(f"{claim.text} {', '.join(parts)}.")
    return f"Along the share of {kind} clips: {' '.join(sentences)}" if sentences else ""


def _verb(word: str) -> str:
    return "is undecided" if word == UNDECIDED else word


def _listed(shares: Sequence[float]) -> str:
    names = [percent(share).replace(".0%", "%") for share in shares]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
