"""Scoring a model on rows of a dataset: the mapped forward pass, and one prediction per clip."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from aver_jax.evaluation import metrics
from aver_jax.evaluation.clip_batches import ClipBatches
from aver_jax.evaluation.forward import Batch, Forward
from aver_jax.input import ClipShape, Dataset, Loader
from aver_jax.runtime.data_parallel import to_host


@dataclasses.dataclass(frozen=True)
class ClipLogits:
    """What a model says about each clip once.

    Attributes:
      rows: int32 [n] rows of the dataset, in the order in which they were first seen.
      logits: float64 [n, C] log probabilities; softmax gives the probabilities.
      branches: the same of each branch with logits of its own: "video", "audio".
      features: float32 [n, D], the input of the last classifier; None unless asked for.
    """

    rows: np.ndarray
    logits: np.ndarray
    branches: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    features: np.ndarray | None = None


def collect_logits(
    forward: Callable[[Batch], dict[str, Any]], batches: Iterable[Batch]
) -> ClipLogits:
    """Runs the batches and gathers one prediction per clip.

    Padding (mask False) is left out. Several views of a clip are averaged as probabilities, not
    as logits: a mixture of the views' predictions, in which one very confident view does not
    outvote the others. Features are averaged as they are.

    Args:
      forward: batch -> what `Forward` gives.
      batches: host batches.
    """
    outputs: list[dict[str, Any]] = []
    pending = None
    for batch in batches:
        output = forward(batch)
        # The device works on this batch while the one before it is read.
        if pending is not None:
            outputs.append(_unpadded(pending))
        pending = output
    if pending is None:
        return ClipLogits(np.zeros(0, np.int32), np.zeros((0, 0)))
    outputs.append(_unpadded(pending))
    found = jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    rows, first, index, views = np.unique(
        found["row"], return_index=True, return_inverse=True, return_counts=True
    )
    seen = np.argsort(first)

    def mixture(logits):
        total = np.full((len(rows), logits.shape[1]), -np.inf)
        np.logaddexp.at(total, index, metrics.log_softmax(logits))
        return (total - np.log(views)[:, None])[seen]

    def mean(features):
        total = np.zeros((len(rows), features.shape[1]))
        np.add.at(total, index, features)
        return (total / views[:, None])[seen].astype(np.float32)

    return ClipLogits(
        rows=rows[seen].astype(np.int32),
        logits=mixture(found["logits"]),
        branches={name: mixture(logits) for name, logits in found.get("branches", {}).items()},
        features=mean(found["features"]) if "features" in found else None,
    )


def _unpadded(output: dict[str, Any]) -> dict[str, Any]:
    host = jax.tree.map(to_host, output)
    return jax.tree.map(lambda array: array[host["mask"]], host)


SCORES = ("loss", "war", "uar", "macro_f1")


class Evaluator:
    """Scores some rows of a dataset again and again, as training goes on.

    Args:
      forward: the model's forward pass.
      loader: how clips are read; its batch size must be a multiple of the devices.
      dataset: an open dataset.
      rows: int [n] rows to score.
      labels: int32 [rows of the dataset], class index (`Split.labels`).
      prefix: the first part of the names, such as "validation".
      views: time slices per clip whose probabilities are averaged.
      keep: whether the decoded batches stay in memory, so that only the first time decodes.
    """

    def __init__(
        self,
        forward: Forward,
        loader: Loader,
        dataset: Dataset,
        rows: np.ndarray,
        labels: np.ndarray,
        prefix: str,
        views: int = 1,
        keep: bool = False,
    ):
        self._forward, self._labels, self._prefix = forward, labels, prefix
        self._batches = ClipBatches(dataset, rows, labels, loader, views, keep)

    def run(self, variables: Any) -> Iterator[tuple[str, float]]:
        """Yields (name, value) of loss (cross-entropy, no smoothing), WAR, UAR and macro F1.

        After them comes the WAR of each branch with logits of its own, "war_video" and "war_audio".
        """
        clips = self.collect(variables)
        labels = self._labels[clips.rows]
        confusion = metrics.confusion_matrix(labels, clips.logits.argmax(-1), clips.logits.shape[1])
        loss = metrics.negative_log_likelihood(clips.logits, labels).mean()
        yield f"{self._prefix}/loss", float(loss)
        yield f"{self._prefix}/war", float(metrics.war(confusion))
        yield f"{self._prefix}/uar", float(metrics.uar(confusion))
        yield f"{self._prefix}/macro_f1", float(metrics.macro_f1(confusion))
        for name, logits in clips.branches.items():
            yield f"{self._prefix}/war_{name}", float((logits.argmax(-1) == labels).mean())

    def collect(
        self,
        variables: Any,
        progress: bool = False,
        change: Callable[[ClipBatches], Iterable[Batch]] = iter,
    ) -> ClipLogits:
        """Returns what the model says of every row, each once.

        Args:
          variables: of the model, replicated over the mesh.
          progress: show a bar.
          change: the batches as they are -> those that the model sees (`controls.Control.batches`).
        """
        bar = tqdm(
            change(self._batches),
            self._prefix,
            len(self._batches),
            unit=" batches",
            disable=not progress,
            leave=False,
        )
        return collect_logits(lambda batch: self._forward(variables, batch), bar)


def evaluation_loader(config: Any, mesh: jax.sharding.Mesh) -> Loader:
    """Returns how evaluation reads clips: all their frames, the batch size rounded up to devices.

    Args:
      config: the experiment; `config.data` and `config.evaluation.batch_size` are read.
      mesh: from `data_parallel.make_mesh`.
    """
    return Loader(
        ClipShape.from_config(config.data, grid=0),
        -(-config.evaluation.batch_size // mesh.size) * mesh.size,
        config.data.threads,
        jax.process_index(),
        jax.process_count(),
    )
