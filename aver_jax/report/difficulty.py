"""Does a score mean something? Trivial baselines, two networks and their controls in one table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from aver_jax.report.html import Section, Table, Text
from aver_jax.report.intervals import percent_with_interval, points_with_interval

# Bounds that a corpus worth learning from keeps (docs/synthetic.md).
_PICTURES, _SOUND, _LEVEL = 0.5, 0.5, 0.25
_FACE, _CONTROL, _FUSION = 0.75, 8.0, 5.0
_LEGEND = (
    "The first rows are trivial baselines, tested on five actor-disjoint folds (aver audit), the "
    "others networks on the actors of this fold. Intervals of 95% resample actors; the measured "
    "value decides what is kept."
)

# Frames in another order, or too few of them. One frame counts where the network can see it.
_TIMELESS = ("frames shuffled", "two frames repeated", "one frame repeated")


class Row(NamedTuple):
    """One line: what was measured, its value with its interval, its bound, and whether it is kept.

    The measured value decides, not the interval; `kept` is None where nothing is asked.
    """

    name: str
    value: str
    bound: str
    kept: bool | None

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "kept", False: "not kept", None: ""}[self.kept]


def difficulty(
    audit: Mapping[str, Any],
    face: Mapping[str, Any],
    fused: Mapping[str, Any],
    sees_one_frame: bool = True,
    alone: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Row]:
    """Returns the rows of the table.

    Args:
      audit: of the dataset (`audit.stored.read_audit`).
      face: results of a video network on unseen actors, with controls.
      fused: results of a fusion network with branches.
      sees_one_frame: False where the front end leaves nothing of a single frame
        (`per_clip_change`): its score is then chance by construction, and shows nothing.
      alone: results of the fusion's branches trained alone, by modality; then these decide, by a
        difference without an interval, and not the branches inside the fusion.
    """
    rows = []
    named = (("pictures", "picture", _PICTURES), ("sound without time", "sound", _SOUND),
             ("loudness, length, bytes", "level", _LEVEL))  # fmt: skip
    for words, group, bound in named:
        entries = [entry for entry in audit["baselines"] if entry["group"] == group]
        if not entries:
            continue
        best = max(entries, key=lambda entry: entry["value"])
        rows.append(
            Row(
                f"{words}, best of {len(entries)} ({best['name']})",
                percent_with_interval(best),
                f"at most {100 * bound:.0f}%",
                best["value"] <= bound,
            )
        )
    score = face["metrics"]["war"]
    rows.append(
        Row("TimeSformer, unseen actors", percent_with_interval(score),
            f"at least {100 * _FACE:.0f}%", score["value"] >= _FACE)
    )  # fmt: skip
    rows += _timeless(face["controls"]["rows"], sees_one_frame)
    # The better branch is the one that the fusion gains least on.
    branch, own = min(
        fused["branches"].items(), key=lambda item: item[1]["fused_minus"]["war"]["value"]
    )
    above = own["fused_minus"]["war"]
    rows += [
        Row("MRPN, unseen actors", percent_with_interval(fused["metrics"]["war"]), "", None),
        Row(f"  above its better branch ({branch})", points_with_interval(above),
            "" if alone else f"at least {_FUSION:.0f} points",
            None if alone else 100 * above["value"] >= _FUSION),
    ]  # fmt: skip
    if alone:
        scores = {name: found["metrics"]["war"]["value"] for name, found in alone.items()}
        best = max(scores, key=scores.get)
        gained = 100 * (fused["metrics"]["war"]["value"] - scores[best])
        rows.append(
            Row(f"  above the better one trained alone ({best}, {100 * scores[best]:.1f}%)",
                f"{gained:+.1f} points", f"at least {_FUSION:.0f} points", gained >= _FUSION)
        )  # fmt: skip
    return rows


def _timeless(controls, sees_one_frame: bool) -> list[Row]:
    """Returns a row for each control that takes time away; the largest loss decides."""
    found = {
        row["control"]: row["minus_as_is"]["war"] for row in controls if row["control"] in _TIMELESS
    }
    telling = [name for name in found if sees_one_frame or name != "one frame repeated"]
    decisive = min(telling, key=lambda name: found[name]["value"], default="")
    rows = []
    for name, change in found.items():
        forced, decides = name not in telling, name == decisive
        rows.append(
            Row(
                f"  {name}" + (" (this front end sees nothing)" if forced else ""),
                points_with_interval(change),
                f"at least {_CONTROL:.0f} points lower" if decides else "",
                -100 * change["value"] >= _CONTROL if decides else None,
            )
        )
    return rows


def difficulty_text(rows: list[Row]) -> str:
    """Returns the table for a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    table = "\n".join(
        f"{row.name:<{widths[0]}}  {row.value:>{widths[1]}}  {row.bound:<{widths[2]}}  "
        f"{row.verdict}".rstrip()
        for row in rows
    )
    return f"{table}\n{_LEGEND}"


def difficulty_section(rows: list[Row]) -> Section:
    """Returns the table as a section of a report."""
    return Section(
        "Does the score mean something?",
        [
            Table(
                ("what", "measured", "bound", "kept?"),
                [(*row[:3], row.verdict) for row in rows],
            ),
            Text([_LEGEND]),
        ],
        "A corpus is worth learning from when trivial models fail on it, and when a network fails "
        "once time is taken from it.",
    )
