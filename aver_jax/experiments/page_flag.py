"""The flag that every experiment has: where its page goes besides its own folder."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_page(add: Callable[..., object]) -> None:
    """Adds --page, None unless given."""
    add("--page", type=_page, metavar="FILE.md", help="also write the results page there")


def _page(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".md":
        raise argparse.ArgumentTypeError(f"{text!r}, expected a file that ends with .md")
    return path
