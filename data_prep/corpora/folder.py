"""A user's own clips, labelled by a CSV file: file,label[,actor]."""

import os
from pathlib import Path

from data_prep.clip import Job
from data_prep.corpora.corpus import Corpus, files_under
from data_prep.corpora.tables import read_table
from data_prep.errors import UserError


def read_corpus(source: Path, labels: Path) -> Corpus:
    """Returns the clips named in a CSV file with the columns file, label and, if known, actor.

    Args:
      source: folder to which the column `file` is relative; paths that leave it are skipped.
      labels: the CSV file; class names are its labels, sorted.

    Raises:
      UserError: no folder, no CSV file, a missing column, or no line in it.
    """
    files_under(source, ())
    rows = _rows(labels)
    corpus = Corpus("folder", tuple(sorted({row["label"] for row in rows if row["label"]})))
    _check_spelling(labels, corpus.classes)
    if len(corpus.classes) < 2:
        found = f"only one label ({corpus.classes[0]})" if corpus.classes else "no label"
        raise UserError(f"{labels} has {found}, expected at least 2; fill in the column label")
    if any("," in name or ":" in name for name in corpus.classes):
        raise UserError(f"{labels} has labels with ',' or ':'; rename them")
    seen: set[str] = set()
    clip_ids: set[str] = set()
    for row in rows:
        file = _within(source, row["file"])
        if file is None:
            corpus.skipped.append((row["file"], "lies outside the folder given with --source"))
        elif not row["label"]:
            corpus.skipped.append((row["file"], f"no label in {labels.name}"))
        elif file in seen:
            corpus.skipped.append((row["file"], f"listed twice in {labels.name}"))
        else:
            seen.add(file)
            clip_id = Path(file).with_suffix("").as_posix()
            if clip_id in clip_ids:
                clip_id = Path(file).as_posix()
            while clip_id in clip_ids:
                clip_id += "_"
            clip_ids.add(clip_id)
            corpus.jobs.append(Job(source / file, clip_id, row["label"], row["actor"]))
    return corpus


def _check_spelling(labels: Path, classes: tuple[str, ...]) -> None:
    """Raises UserError for labels that differ by case or spaces alone: one class, not two."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault("".join(name.casefold().split()), []).append(name)
    for names in spellings.values():
        if len(names) > 1:
            told = " and ".join(map(repr, names))
            raise UserError(f"{labels} has the labels {told}; write one class in one way")


def _within(source: Path, file: str) -> str | None:
    """Returns a path's one spelling, relative to the source; None for a path elsewhere."""
    base = os.path.abspath(source)
    name = os.path.relpath(os.path.join(base, file), base)
    return None if name.split(os.sep)[0] in (os.curdir, os.pardir) else name


def _rows(labels: Path) -> list[dict]:
    if not labels.is_file():
        raise UserError(f"no file {labels}; expected a CSV with file,label[,actor] for --labels")
    columns, rows = read_table(labels, "save it as CSV UTF-8", short_rows=True)
    if not {"file", "label"} <= set(columns):
        found = ",".join(columns) or "nothing"
        raise UserError(
            f"{labels} has the columns {found}, expected file,label[,actor]; {_remedy(columns)}"
        )
    keys = ("file", "label", "actor")
    rows = [{key: row.get(key, "").strip() for key in keys} for row in rows]
    rows = [row for row in rows if row["file"]]
    if not rows:
        raise UserError(f"{labels} lists no files; add a line for every clip")
    return rows


def _remedy(columns: list[str]) -> str:
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if any(mark in column for column in columns):
            return f"separate them by commas instead of {name}"
    if {"file", "label"} <= {column.lower() for column in columns}:
        return "write the header in lower case"
    return "name the columns so in its first line"
