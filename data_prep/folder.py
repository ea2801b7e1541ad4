"""A user's own clips, labelled by a CSV file: file,label[,actor]."""

import csv
from pathlib import Path

from data_prep.clip import Job
from data_prep.corpus import Corpus, files_under
from data_prep.errors import UserError


def read_corpus(source: Path, labels: Path) -> Corpus:
    """The clips named in a CSV file with the columns file, label and, if known, actor.

    Args:
      source: folder to which the column `file` is relative.
      labels: the CSV file; class names are its labels, sorted.

    Raises:
      UserError: no folder, no CSV file, a missing column, or no line in it.
    """
    files_under(source, ())
    rows = _rows(labels)
    corpus = Corpus("folder", tuple(sorted({row["label"] for row in rows if row["label"]})))
    if len(corpus.classes) < 2:
        found = f"{len(corpus.classes)} different labels"
        raise UserError(f"{labels} has {found}, expected at least 2; fill in the column label")
    if any("," in name or ":" in name for name in corpus.classes):
        raise UserError(f"{labels} has labels with ',' or ':'; rename them")
    seen: set[str] = set()
    for row in rows:
        file = row["file"]
        if not row["label"]:
            corpus.skipped.append((file, f"no label in {labels.name}"))
        elif file in seen:
            corpus.skipped.append((file, f"listed twice in {labels.name}"))
        else:
            seen.add(file)
            clip_id = Path(file).with_suffix("").as_posix()
            if clip_id in {job.clip_id for job in corpus.jobs}:
                clip_id = Path(file).as_posix()
            corpus.jobs.append(Job(source / file, clip_id, row["label"], row["actor"]))
    return corpus


def _rows(labels: Path) -> list[dict]:
    if not labels.is_file():
        raise UserError(f"no file {labels}; expected a CSV with file,label[,actor] for --labels")
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [
                {key: (row.get(key) or "").strip() for key in ("file", "label", "actor")}
                for row in reader
            ]
    except UnicodeDecodeError:
        raise UserError(f"{labels} is not UTF-8 text; save it as CSV UTF-8") from None
    if not {"file", "label"} <= set(columns):
        found = ",".join(columns) or "nothing"
        raise UserError(f"{labels} has the columns {found}, expected file,label[,actor]")
    rows = [row for row in rows if row["file"]]
    if not rows:
        raise UserError(f"{labels} lists no files; add a line for every clip")
    return rows
