"""A folder of clips as a reader sees it: the jobs, and the files that are none."""

import csv
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.clip import Job
from data_prep.errors import UserError
from data_prep.media.container import LFS_POINTER, is_lfs_pointer
from data_prep.synthetic.truth import BOXES, COLUMNS, TABLE

VIDEO_SUFFIXES = frozenset(
    (".flv", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp")
)
SOUND_SUFFIXES = (".wav", ".flac", ".m4a", ".ogg", ".mp3")


@dataclass
class Corpus:
    """What a reader found in a folder.

    name: "crema_d", "ravdess" or "folder".
    classes: class names in label order.
    jobs: clips to prepare, in the order in which they are stored.
    skipped: (file, reason) of files that should have been clips; they count as failures.
    excluded: (file, reason) of files left out on purpose; they do not.
    notes: lines for the person at the keyboard (a table that is missing).
    """

    name: str
    classes: tuple[str, ...]
    jobs: list[Job] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    excluded: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def clip_files(corpus: Corpus, source: Path, suffixes: Iterable[str]) -> list[Path]:
    """Returns files of `files_under`; what has a clip's name and is none is skipped."""
    files = []
    for file in _named(source, suffixes):
        reason = _no_file(file, source)
        if reason:
            corpus.skipped.append((listed(file, source), reason))
        else:
            files.append(file)
    return files


def files_under(source: Path, suffixes: Iterable[str]) -> list[Path]:
    """Returns files below a folder with one of the (lower-case) suffixes, sorted, none hidden.

    Raises:
      UserError: the folder does not exist.
    """
    return [file for file in _named(source, suffixes) if file.is_file()]


def _named(source: Path, suffixes: Iterable[str]) -> list[Path]:
    if not source.is_dir():
        raise UserError(f"no folder {source}; expected the clips there, give it with --source")
    wanted = frozenset(suffixes)
    return sorted(
        file
        for file in source.rglob("*")
        if file.suffix.lower() in wanted
        and not any(part.startswith(".") for part in file.relative_to(source).parts)
    )


def _no_file(file: Path, source: Path) -> str:
    """Returns why a path is no file that can be read and listed, or ""."""
    try:
        str(file.relative_to(source)).encode()
        mode = file.stat().st_mode
    except UnicodeEncodeError:
        return "its name is not UTF-8 text: rename it"
    except FileNotFoundError:
        return "a link to a file that is not there"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "a folder, not a media file"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def listed(file: Path, source: Path) -> str:
    """Returns a file's name as in `skipped.csv`: relative to the source if it lies there."""
    return file.relative_to(source).as_posix() if file.is_relative_to(source) else str(file)


def one_file_per_clip(
    corpus: Corpus, candidates: Iterable[tuple[str, Path]], source: Path
) -> Iterator[tuple[str, Path]]:
    """Passes on the first file of every clip id; further ones are listed as excluded."""
    first: dict[str, Path] = {}
    for clip_id, file in candidates:
        if clip_id in first:
            reason = f"same clip as {listed(first[clip_id], source)}"
            corpus.excluded.append((listed(file, source), reason))
        else:
            first[clip_id] = file
            yield clip_id, file


def without_lfs_pointers(corpus: Corpus, source: Path) -> None:
    """Moves the jobs whose files Git LFS did not fetch to `skipped`.

    Raises:
      UserError: that is all of them.
    """
    pointers = [job for job in corpus.jobs if is_lfs_pointer(job.path)]
    if pointers and len(pointers) == len(corpus.jobs):
        raise UserError(
            f"the {len(pointers)} clips under {source} are Git LFS pointers, not the files "
            "themselves; run `git lfs pull` there"
        )
    corpus.jobs = [job for job in corpus.jobs if job not in pointers]
    corpus.skipped += [(listed(job.path, source), LFS_POINTER) for job in pointers]


def truth_files(source: Path) -> list[Path]:
    """Returns the rendered corpus' truth files (table, boxes); none of recorded clips."""
    files = [source / TABLE, source / BOXES]
    if not all(file.is_file() for file in files):
        return []
    try:
        with files[0].open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    # Anybody may call a table of their own "truth".
    return files if tuple(header) == COLUMNS else []
