"""RAVDESS: the audio-video speech clips, by their official names."""

import re
from pathlib import Path

from data_prep.clip import Job
from data_prep.corpora.corpus import (
    VIDEO_SUFFIXES,
    Corpus,
    clip_files,
    listed,
    one_file_per_clip,
)
from data_prep.errors import UserError

# In the order of the emotion codes 01 to 08: neutral, calm, happy, sad, angry, fearful, disgust,
# surprised; named as in CREMA-D.
CLASSES = ("NEU", "CAL", "HAP", "SAD", "ANG", "FEA", "DIS", "SUR")
INTENSITIES = {"01": "normal", "02": "strong"}
PATTERN = "MODALITY-CHANNEL-EMOTION-INTENSITY-STATEMENT-REPETITION-ACTOR (01-01-03-01-01-01-12)"
_NAME = re.compile(
    r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])"
    r"-(?P<statement>0[12])-(?P<repetition>0[12])-(?P<actor>\d\d)"
)


def read_corpus(source: Path) -> Corpus:
    """Returns the clips below a folder with modality 01 (audio-video) and channel 01 (speech).

    Other recordings (video only, sound only, song) repeat the same performances or are another
    task: they are listed as excluded, which is no failure.

    Raises:
      UserError: no folder, or no video file in it.
    """
    corpus = Corpus("ravdess", CLASSES)
    files = clip_files(corpus, source, VIDEO_SUFFIXES | {".wav"})
    if not files and not corpus.skipped:
        raise UserError(f"no video files under {source}; expected RAVDESS' Actor_*/01-01-*.mp4")
    candidates = []
    for file in files:
        match = _NAME.fullmatch(file.stem)
        if match is None:
            corpus.skipped.append((listed(file, source), f"file name does not follow {PATTERN}"))
        elif (match["modality"], match["channel"]) != ("01", "01"):
            found = f"modality {match['modality']}, channel {match['channel']}"
            corpus.excluded.append((listed(file, source), f"not audio-video speech ({found})"))
        else:
            candidates.append((file.stem, file))
    for clip_id, file in one_file_per_clip(corpus, candidates, source):
        corpus.jobs.append(Job(path=file, clip_id=clip_id, **parse_name(clip_id)))
    return corpus


def parse_name(stem: str) -> dict | None:
    """Returns label, intensity, sentence, actor, sex of 01-01-03-01-01-01-12 and such, or None."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    return {
        "label": CLASSES[int(match["emotion"]) - 1],
        "intensity": INTENSITIES[match["intensity"]],
        "sentence": match["statement"],
        "actor": match["actor"],
        "sex": "male" if int(match["actor"]) % 2 else "female",
    }
