"""The cases of tools/gpu_check.sh: SIZES=full, or small to rehearse on a CPU. Imports no jax."""

import argparse
import dataclasses
from pathlib import Path
from typing import NamedTuple

from aver_jax.bench.cases import Case, resnet, timesformer


class Sizes(NamedTuple):
    """Everything whose size matters.

    Attributes:
      rows, tokens, heads, head_size: of the attention that is compared.
      steps: trainings of which one step is compared, float32.
      explained: the case whose relevance is compared, float32.
      timed: cases that are timed, the most important first.
      beside_torch: indices of `timed`, in the order in which torch does them.
      rounds: of timing.
    """

    rows: int
    tokens: int
    heads: int
    head_size: int
    steps: tuple[Case, ...]
    explained: Case
    timed: tuple[Case, ...]
    beside_torch: tuple[int, ...]
    rounds: int


def _layers(case: Case, depth: int) -> Case:
    unroll = depth if case.model["unroll"] > 1 else 1
    return dataclasses.replace(case, model=case.model | {"depth": depth, "unroll": unroll})


_FEW = {"stage_sizes": (1, 1, 1, 1)}
_TINY = {"width": 8, "stage_sizes": (1,), "features": 16}
_N2 = (32, 16, 224, 5.0, "bfloat16")

SIZES = {
    "full": Sizes(
        # 16 clips of 8 frames at TimeSformer-B's shape.
        *(128, 197, 12, 64),
        steps=(
            _layers(timesformer("Ti", "train", 8, 8, 96, "float32", unrolled=True), 4),
            resnet("video", "train", 8, 8, 64, 0.0, "float32", **_FEW),
            resnet("n2", "train", 8, 8, 64, 2.0, "float32", **_FEW),
        ),
        explained=_layers(timesformer("Ti", "relevance", 4, 8, 96, "float32"), 4),
        # The programs of configs/timesformer.py and configs/mrpn.py at their published sizes.
        timed=(
            timesformer("B", "train", 64, 8, 224, "bfloat16", unrolled=True),
            timesformer("B", "inference", 64, 8, 224, "bfloat16"),
            timesformer("B", "relevance", 32, 8, 224, "bfloat16"),
            resnet("n2", "train", *_N2),
            resnet("n2", "inference", *_N2),
        ),
        beside_torch=(0, 2, 3, 1, 4),
        rounds=9,
    ),
    "small": Sizes(
        *(2, 13, 2, 8),
        steps=(
            timesformer("mini", "train", 4, 2, 32, "float32", unrolled=True),
            resnet("video", "train", 4, 2, 32, 0.0, "float32", **_TINY),
            resnet("n2", "train", 4, 2, 32, 1.0, "float32", **_TINY),
        ),
        explained=timesformer("mini", "relevance", 2, 2, 32, "float32"),
        timed=(
            timesformer("mini", "train", 2, 2, 32, "float32", unrolled=True),
            timesformer("mini", "inference", 2, 2, 32, "float32"),
            timesformer("mini", "relevance", 2, 2, 32, "float32"),
            resnet("n2", "train", 2, 2, 32, 1.0, "float32", **_TINY),
            resnet("n2", "inference", 2, 2, 32, 1.0, "float32", **_TINY),
        ),
        beside_torch=(0, 2, 3, 1, 4),
        rounds=5,
    ),
}


def arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser of what every step takes: "sizes", a key of `SIZES`, and "out", a path."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--sizes", choices=tuple(SIZES), default="full")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def with_dtype(case: Case, dtype: str) -> Case:
    """Returns the case in another dtype."""
    return dataclasses.replace(case, model=case.model | {"dtype": dtype})
