"""The files by which sides of a benchmark do the same: case.json, weights, batch, and results.

case.json         the case, and the settings of front end, loss and optimizer
variables.npz     float32, by the names of the tree: "params/blocks/attn/qkv/kernel"
batch.npz         the host batch
factors.npz       of the augmentation whose result is compared
result_SIDE.npz   what a side answers
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax

from aver_jax.bench.cases import Case
from aver_jax.bench.worker.inputs import (
    NUM_CLASSES,
    experiment,
    has_model,
    model_of_case,
    named_leaves,
)
from aver_jax.bench.worker.protocol import write_arrays
from aver_jax.bench.worker.tasks import CHECKED_STEPS, Work
from aver_jax.config import to_json
from aver_jax.frontend import augment, spectrogram
from aver_jax.runtime.atomic_files import write_whole
from aver_jax.training.optimizer import decay_mask

# optax's default, which `config.optimizer` does not set.
_EPSILON = 1e-8


def write(folder: Path, case: Case, work: Work, data: Path | None, threads: int) -> None:
    """Writes what other sides need to do the case; case.json last."""
    write_arrays(folder / "variables.npz", named_leaves(work.variables))
    write_arrays(folder / "batch.npz", work.batch)
    if work.factors:
        write_arrays(folder / "factors.npz", work.factors)
    told = _told(case, work) | {"dataset": str(data) if data else None, "threads": threads}
    write_whole(folder / "case.json", json.dumps(told, indent=2))


def _told(case: Case, work: Work) -> dict[str, Any]:
    config, decayed = experiment(case), []
    if has_model(case):
        mask = jax.tree.map(bool, decay_mask(work.variables["params"]))
        decayed = [name for name, on in named_leaves({"params": mask}).items() if on]
    optimizer = to_json(config.optimizer)
    target = work.result["target"].tolist() if case.task == "relevance" else None
    settings = spectrogram.checked_settings(config.frontend.spectrogram)
    return {
        "case": dataclasses.asdict(case),
        "num_classes": NUM_CLASSES,
        "frontend": {
            "normalization": config.frontend.normalization,
            "spectrogram": dataclasses.asdict(settings),
            "augment": augment.checked_amounts(config.frontend.augment),
        },
        "optimizer": {
            **{n: optimizer[n] for n in ("name", "lr", "b1", "b2", "weight_decay", "clip_norm")},
            "eps": _EPSILON,
            "decayed": decayed,
        },
        "label_smoothing": config.label_smoothing,
        "auxiliary_logits": list(model_of_case(case).auxiliary_logits) if has_model(case) else [],
        "steps": CHECKED_STEPS,
        "relevance": {"method": "tibav", "path": "space_time"},
        "target": target,
    }
