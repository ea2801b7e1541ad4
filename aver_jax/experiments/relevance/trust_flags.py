"""Flags of the experiments `truth` and `sanity`."""

from collections.abc import Callable
from pathlib import Path

from aver_jax.experiments.page_flag import add_page
from aver_jax.experiments.relevance.run_flags import add_run, count, names

CORPORA = "mouth,eyes,early,late"


def truth_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `truth`, which renders and trains what it explains."""
    add("--out", type=Path, required=True, help="folder of corpora, runs and results")
    add("--corpora", type=names, default=CORPORA, help=f"some of {CORPORA} (default: all)")
    add("--methods", type=names, default="all", help="as tibav,grad_cam (default: all)")
    add("--clips", type=count, default=360, help="clips of each corpus (default: 360)")
    add("--actors", type=count, default=30, help="actors of each corpus (default: 30)")
    add("--epochs", type=count, default=30, help="epochs of training (default: 30)")
    add_page(add)


def sanity_flags(add: Callable[..., object]) -> None:
    """Adds the flags of `sanity`."""
    add_run(add, clips=48)
    add(
        "--random-labels-run",
        type=Path,
        metavar="RUN2",
        help="a run of the same model trained on permuted labels; its maps are compared as well",
    )
