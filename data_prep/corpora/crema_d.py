"""CREMA-D: clips, demographics and crowd votes from its official layout."""

import re
from pathlib import Path

from data_prep.clip import Job
from data_prep.corpora.corpus import (
    SOUND_SUFFIXES,
    VIDEO_SUFFIXES,
    Corpus,
    clip_files,
    files_under,
    listed,
    one_file_per_clip,
)
from data_prep.corpora.tables import read_table
from data_prep.errors import UserError

CLASSES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
LEVELS = ("LO", "MD", "HI", "XX")
PATTERN = "ACTOR_SENTENCE_EMOTION_LEVEL (1001_DFA_ANG_XX)"
# One published clip, 1040_ITH_SAD_X, has lost a letter.
_NAME = re.compile(
    rf"(?P<actor>\d{{4}})_(?P<sentence>[A-Z]{{3}})_(?P<label>{'|'.join(CLASSES)})"
    rf"_(?P<level>{'|'.join(LEVELS)}|X)"
)
_VOTE_LETTERS = {name[0]: name for name in CLASSES}
_VOTE_COLUMNS = {
    "vote_voice": "VoiceVote",
    "vote_face": "FaceVote",
    "vote_multimodal": "MultiModalVote",
}
_SOUND_FOLDERS = ("AudioWAV", "AudioMP3")


def read_corpus(source: Path) -> Corpus:
    """Returns the clips below a folder: `VideoFlash/*.flv`, or MP4, ... with official names.

    Tables (`VideoDemographics.csv`, `summaryTable.csv`) are looked for in the folder, in its
    `processedResults` and `tables`, and in the same places of its parent. Sound for clips without
    it is looked for by name below the folder and in `AudioWAV` and `AudioMP3` beside it.

    Raises:
      UserError: no folder, no video file in it, or a damaged table.
    """
    corpus = Corpus("crema_d", CLASSES)
    people = demographics(_table(corpus, source, "VideoDemographics.csv", "sex and age"))
    votes = crowd_votes(_table(corpus, source, "summaryTable.csv", "crowd votes"))
    sounds = _sounds(source)
    files = clip_files(corpus, source, VIDEO_SUFFIXES)
    if not files and not corpus.skipped:
        raise UserError(f"no video files under {source}; expected CREMA-D's VideoFlash/*.flv")
    candidates = []
    for file in files:
        if parse_name(file.stem) is None:
            corpus.skipped.append((listed(file, source), f"file name does not follow {PATTERN}"))
        else:
            candidates.append((official_name(file.stem), file))
    for clip_id, file in one_file_per_clip(corpus, candidates, source):
        known = parse_name(clip_id)
        known |= people.get(known["actor"], {}) | votes.get(clip_id, {})
        sound = sounds.get(clip_id)
        corpus.jobs.append(Job(path=file, clip_id=clip_id, audio_path=sound, **known))
    return corpus


def official_name(stem: str) -> str:
    """Returns the name by which tables know a clip: one was published without its last letter."""
    return f"{stem}X" if stem.endswith("_X") else stem


def parse_name(stem: str) -> dict | None:
    """Returns actor, sentence, label, intensity of a name such as 1001_DFA_ANG_XX, or None."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    level = match["level"]
    return {
        "actor": match["actor"],
        "sentence": match["sentence"],
        "label": match["label"],
        "intensity": "XX" if level == "X" else level,
    }


def vote_name(letters: str) -> str:
    """Returns the classes of a vote ("A" -> "ANG"; a tie "A:D" -> "ANG:DIS"), "" if none."""
    names = [_VOTE_LETTERS.get(letter.strip().upper()) for letter in letters.split(":")]
    return ":".join(names) if None not in names else ""


def demographics(table: Path | None) -> dict[str, dict]:
    """Returns sex and age by actor: {sex "male"|"female", age}, of `VideoDemographics.csv`."""
    return {
        row["ActorID"].strip(): {
            "sex": row.get("Sex", "").strip().lower(),
            "age": int(row["Age"]) if row.get("Age", "").strip().isdecimal() else -1,
        }
        for row in _rows(table, "ActorID")
    }


def crowd_votes(table: Path | None) -> dict[str, dict]:
    """Returns votes by clip id: {vote_voice, vote_face, vote_multimodal}, of `summaryTable.csv`."""
    return {
        official_name(row["FileName"].strip()): {
            name: vote_name(row.get(column, "")) for name, column in _VOTE_COLUMNS.items()
        }
        for row in _rows(table, "FileName")
    }


def _rows(table: Path | None, key: str) -> list[dict]:
    if table is None:
        return []
    columns, rows = read_table(table, "replace it by CREMA-D's own")
    if key not in columns:
        raise UserError(f"{table} has no column {key}, expected CREMA-D's own table; replace it")
    return rows


def _table(corpus: Corpus, source: Path, name: str, content: str) -> Path | None:
    for base in (source, source.absolute().parent):
        for folder in (base, base / "processedResults", base / "tables"):
            if (folder / name).is_file():
                return folder / name
    corpus.notes.append(f"no {name} in or beside {source}: {content} left empty")
    return None


def _sounds(source: Path) -> dict[str, Path]:
    files = files_under(source, SOUND_SUFFIXES)
    for name in _SOUND_FOLDERS:
        beside = source.absolute().parent / name
        files += files_under(beside, SOUND_SUFFIXES) if beside.is_dir() else []
    # Sound without loss comes first in SOUND_SUFFIXES.
    files.sort(key=lambda file: SOUND_SUFFIXES.index(file.suffix.lower()), reverse=True)
    return {official_name(file.stem): file for file in files}
