"""Where a dataset or corpus is written: checked, prepared beside its place, never half there."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import UserError

# What `DatasetWriter` leaves in a dataset, beside the shards.
_DATASET_FILES = frozenset(
    (
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
        "index.csv",
        "skipped.csv",
        "preparation.json",
        "truth.csv",
        "truth.npz",
    )
)


def place(out: str | Path) -> Path:
    """Returns the absolute folder that `out` names, through symbolic links, there or not."""
    # Path.resolve raises on a loop of links; mkdir then says so.
    return Path(os.path.realpath(out))


def partial_folder(out: Path) -> Path:
    """Returns the folder beside `out` in which this process builds what will be `out`."""
    return out.with_name(f".{out.name}.partial-{os.getpid()}")


def is_dataset(folder: Path) -> bool:
    """Returns whether a folder holds a complete prepared dataset."""
    return (folder / "preparation.json").is_file() and (folder / "dataset_info.json").is_file()


def check_out(out: str | Path, overwrite: bool) -> None:
    """Raises UserError unless a dataset may be written at `out`."""
    out = place(out)
    with reported(out):
        held = sorted(file.name for file in out.iterdir()) if out.is_dir() else []
        is_file = not out.is_dir() and os.path.lexists(out)
    check_parent(out)
    if is_file:
        raise UserError(f"{out} is a file, expected a folder to make; choose another --out")
    if not held:
        return
    if not is_dataset(out):
        raise UserError(f"{out} holds other files, expected a new folder; choose another --out")
    if not overwrite:
        raise UserError(f"{out} already holds a prepared dataset; --overwrite replaces it")
    foreign = [name for name in held if not _of_dataset(out / name)]
    if foreign:
        raise UserError(
            f"{out} holds {foreign[0]!r}, which is not of a dataset, expected nothing else in a "
            "folder to overwrite; move it away, or choose another --out"
        )


def _of_dataset(file: Path) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    return file.name in _DATASET_FILES or ".array_record-" in file.name


def check_apart(out: str | Path, sources: Iterable[Path]) -> None:
    """Raises UserError if a source lies in `out`, which would be replaced with it."""
    out = place(out)
    for source in sources:
        if place(source).is_relative_to(out) and os.path.lexists(source):
            raise UserError(
                f"{source} lies in {out}, expected --out apart from what is read; "
                "choose another --out"
            )


def check_parent(out: Path) -> None:
    """Raises UserError if the folders above `out` cannot be made, as far as can be told."""
    parent = next((folder for folder in out.parents if os.path.lexists(folder)), out)
    if not parent.is_dir():
        raise UserError(f"cannot write {out}: {parent} is a file; choose another --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {out}: no permission in {parent}; choose another --out")


@contextmanager
def reported(out: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turns a failure to write (OSError, and the `errors` of a library) into a UserError."""
    try:
        yield
    except (OSError, *errors) as error:
        # ArrayRecord adds where and at which byte, after a semicolon.
        reason = getattr(error, "strerror", None) or str(error).partition(";")[0]
        raise UserError(
            f"cannot write {out}: {reason}; free some space, or choose another --out"
        ) from None


def start_partial(out: Path) -> Path:
    """Makes `partial_folder(out)`, and removes what killed processes left beside it."""
    partial = partial_folder(out)
    with reported(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out)
        partial.mkdir()
    return partial


def _remove_stale(out: Path) -> None:
    # Not by glob: the name may hold its wildcards.
    beside = [(folder, folder.name.rpartition("-")) for folder in out.parent.iterdir()]
    stems = [f".{out.name}.partial"]
    # Without a dataset at `out`, what an interrupted --overwrite set aside is the only one.
    stems += [f".{out.name}.old"] if is_dataset(out) else []
    for folder, (stem, _, pid) in beside:
        if stem in stems and not _alive(pid):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return int(pid) != os.getpid()
