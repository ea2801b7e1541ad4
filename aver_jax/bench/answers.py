"""Arrays that sides of a benchmark leave for each other in a folder. Knows no jax."""

from pathlib import Path

import numpy as np

from aver_jax.runtime.atomic_files import whole


def write_result(folder: Path, side: str, result: dict[str, np.ndarray]) -> None:
    """Writes what a side answers, for the parent to compare."""
    write_arrays(folder / f"result_{side}.npz", result)


def read_result(folder: Path, side: str) -> dict[str, np.ndarray]:
    """Returns what a side answered; {} if it wrote nothing."""
    return read_arrays(folder / f"result_{side}.npz")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz; {} if there is none."""
    if not path.exists():
        return {}
    with np.load(path) as arrays:
        return dict(arrays)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz whole."""
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
