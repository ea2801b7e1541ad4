"""Crowd votes on rendered clips, simulated from what each clip shows, in CREMA-D's table.

A rater draws an emotion from softmax(evidence): what the modality shows, times how well raters read
it, and an ambiguity of the clip that all its raters share. How well they read was set so that
single raters of the default corpus agree with the label as often as CREMA-D's do: 41% from the
voice, 58% from the face, 64% from both (Cao et al. 2014, section 5).
"""

import csv
from pathlib import Path

import numpy as np

from data_prep.synthetic.plan import CREMA_D_CLASSES

TABLE = Path("processedResults") / "summaryTable.csv"
COLUMNS = ("", "FileName", "VoiceVote", "VoiceLevel", "FaceVote", "FaceLevel", "MultiModalVote",
           "MultiModalLevel")  # fmt: skip
RATERS = 10
# How well raters read a full expression, and for how neutral they take what shows none.
_READ = {"voice": 2.45, "face": 3.8}
_PLAIN = {"voice": 1.15, "face": 1.6}
_AMBIGUITY = 0.9


def simulated_votes(row: dict, shown: dict[str, dict[str, float]], seed: int) -> list[str]:
    """Returns the clip's row of the table.

    Args:
      row: the clip's row of the truth table; its clip_id and strengths are read.
      shown: "face" and "voice" -> emotion -> strength, as planned (`ClipPlan.face`, `.voice`).
      seed: of the corpus.
    """
    rng = np.random.default_rng([seed, 8, *row["clip_id"].encode()])
    evidence = {}
    for modality in ("voice", "face"):
        total = sum(shown[modality].values())
        scale = float(row[f"{modality}_strength"]) / total if total else 0.0
        seen = np.array([shown[modality].get(c, 0.0) * scale for c in CREMA_D_CLASSES])
        found = _READ[modality] * seen
        found[CREMA_D_CLASSES.index("NEU")] += _PLAIN[modality]
        evidence[modality] = found + _AMBIGUITY * rng.normal(size=len(found))
    # Both together are read a little worse than their sum.
    evidence["both"] = 0.76 * (evidence["voice"] + evidence["face"])
    strengths = {m: float(row[f"{m}_strength"]) for m in ("voice", "face")}
    strengths["both"] = max(strengths.values())
    cells = []
    for modality in ("voice", "face", "both"):
        chance = np.exp(evidence[modality] - evidence[modality].max())
        counts = rng.multinomial(RATERS, chance / chance.sum())
        winners = [c[0] for c, n in zip(CREMA_D_CLASSES, counts, strict=True) if n == counts.max()]
        level = np.clip(50 + 30 * strengths[modality] + rng.normal(0, 8), 5, 98)
        cells += [":".join(winners), f"{level:.2f}"]
    return [row["clip_id"], *cells]


def write_votes(folder: Path, rows: list[list[str]]) -> None:
    """Writes the table of `simulated_votes` rows under `folder`, as CREMA-D publishes its own."""
    (folder / TABLE).parent.mkdir()
    with open(folder / TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        writer.writerows([str(n), *row] for n, row in enumerate(rows, 1))
