"""What people achieve: majority votes computed from the crowd's table, single raters as published.

A clip's intended emotion counts as recognised when more raters chose it than any other. A tie is
a miss: the crowd did not agree on it.
"""

from collections.abc import Mapping

import numpy as np

#: Modality -> column of a prepared dataset's index.
VOTES = {"audio": "voice_vote", "video": "face_vote", "both": "multimodal_vote"}

#: Dataset -> modality -> accuracy of one rater.
SINGLE_RATER = {
    "crema_d": {"audio": 0.409, "video": 0.582, "both": 0.636},
    "ravdess": {"both": 0.723},
}
#: Dataset -> where its single-rater numbers are from.
SOURCES = {
    "crema_d": "Cao et al. 2014, all clips",
    "ravdess": "Chang 2021, chapter 5.1.2, after Livingstone and Russo 2018",
}


def majority_accuracy(votes, labels) -> float | None:
    """Share of clips whose majority vote is the label.

    Args:
      votes: text [n], the class most raters chose; a tie is written "ANG:DIS", "" is no vote.
      labels: text [n], the intended class.

    Returns:
      The share of hits among the clips with votes, ties counted as misses; None without votes.
    """
    votes, labels = np.asarray(votes, str), np.asarray(labels, str)
    voted = votes != ""
    return float((votes[voted] == labels[voted]).mean()) if voted.any() else None


def majority_of(index: Mapping[str, np.ndarray], rows) -> dict[str, float]:
    """Majority-vote accuracy by modality, on some rows of a dataset's index; without votes, {}."""
    found = {
        name: majority_accuracy(index[column][rows], index["label"][rows])
        for name, column in VOTES.items()
    }
    return {name: value for name, value in found.items() if value is not None}
