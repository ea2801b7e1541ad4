"""Does a score mean something? Trivial baselines, two networks and their controls in one table."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from aver_jax.report.html import Section, Table, Text

# Bounds that a corpus worth learning from keeps (docs/synthetic.md).
_PICTURES, _SOUND, _LEVEL = 0.5, 0.5, 0.25
_FACE, _CONTROL, _FUSION = 0.75, 8.0, 5.0


class Row(NamedTuple):
    """One line: what was measured, its value and its bound in words, and whether it is kept."""

    name: str
    value: str
    bound: str
    kept: bool


def difficulty(
    audit: Mapping[str, Any], face: Mapping[str, Any], fused: Mapping[str, Any]
) -> list[Row]:
    """Returns the rows of the table.

    Args:
      audit: of the dataset (`audit.stored.read_audit`).
      face: results of a video network on unseen actors, with controls.
      fused: results of a fusion network with branches.
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
                f"best trivial baseline, {words} ({best['name']})",
                f"{100 * best['value']:.1f}%",
                f"at most {100 * bound:.0f}%",
                best["value"] <= bound,
            )
        )
    score = face["metrics"]["war"]["value"]
    rows.append(
        Row("TimeSformer, unseen actors", f"{100 * score:.1f}%", f"at least {100 * _FACE:.0f}%",
            score >= _FACE)
    )  # fmt: skip
    lost = {
        row["control"]: -100 * row["minus_as_is"]["war"]["value"]
        for row in face["controls"]["rows"]
        if row["control"] in ("one frame repeated", "frames shuffled")
    }
    rows.append(
        Row(
            "  " + " / ".join(f"with {name}" for name in lost),
            " / ".join(f"-{points:.1f}" for points in lost.values()),
            f"one of them {_CONTROL:.0f} points lower",
            max(lost.values()) >= _CONTROL,
        )
    )
    above = min(100 * own["fused_minus"]["war"]["value"] for own in fused["branches"].values())
    rows.append(
        Row(
            f"MRPN ({100 * fused['metrics']['war']['value']:.1f}%) above its better branch",
            f"{above:+.1f} points",
            f"at least {_FUSION:.0f} points",
            above >= _FUSION,
        )
    )
    return rows


def difficulty_text(rows: list[Row]) -> str:
    """Returns the table for a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{row.name:<{widths[0]}}  {row.value:>{widths[1]}}  {row.bound:<{widths[2]}}  "
        f"{'kept' if row.kept else 'not kept'}"
        for row in rows
    )


def difficulty_section(rows: list[Row]) -> Section:
    """Returns the table as a section of a report."""
    return Section(
        "Does the score mean something?",
        [
            Table(
                ("what", "measured", "bound", "kept?"),
                [(*row[:3], "kept" if row.kept else "not kept") for row in rows],
            ),
            Text(
                [
                    "Trivial baselines are tested on five actor-disjoint folds (aver audit), the "
                    "networks on the actors of this fold. A branch is scored inside the MRPN."
                ]
            ),
        ],
        "A corpus is worth learning from when trivial models fail on it, and when a network fails "
        "once time is taken from it.",
    )
