"""Files that appear whole or not at all."""

import contextlib
import csv
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from aver_jax.errors import UserError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, moved into place when the block ends well.

    The name keeps the ending of `path`, since some writers go by it; the folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path, flag: str) -> None:
    """Raises UserError unless files can be written to a folder, there or not yet.

    Args:
      folder: where a command will write at its end.
      flag: that chooses another one, for the message.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = f"cannot write to {folder} ({error.strerror})"
        raise UserError(f"{reason}; choose another {flag}") from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole; text as UTF-8."""
    with whole(path) as temporary:
        temporary.write_bytes(
            content.encode(errors="backslashreplace") if isinstance(content, str) else content
        )


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Returns rows as CSV text; None becomes an empty cell and floats keep six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])
    return text.getvalue()
