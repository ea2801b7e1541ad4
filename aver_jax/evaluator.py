"""Scoring a model on rows of a dataset: the mapped forward pass, and one answer per clip."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from aver_jax import metrics, parallel
from aver_jax.frontend import evaluation_inputs
from aver_jax.input import Dataset, evaluation_batches

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ClipLogits:
    """What a model says about each clip once.

    Attributes:
      rows: int32 [n] rows of the dataset, in the order in which they were first seen.
      logits: float64 [n, C] log probabilities; softmax gives the probabilities.
    """

    rows: np.ndarray
    logits: np.ndarray


class Forward:
    """A model's forward pass, mapped over the devices and compiled once per batch shape.

    Attributes:
      devices: how many devices share a batch; its size must be a multiple of this.
    """

    def __init__(self, model: Any, config: Any, mesh: jax.sharding.Mesh):
        def of_one_device(variables, batch):
            logits, _ = model.apply(variables, evaluation_inputs(config, batch), train=False)
            # Row and mask go along, so that every process can gather all of them with the logits.
            return {"logits": logits, "row": batch["row"], "mask": batch["mask"]}

        self.devices = mesh.size
        self._mesh = mesh
        self._mapped = parallel.map_forward(of_one_device, mesh)

    def __call__(self, variables: Any, batch: Batch) -> dict[str, jax.Array]:
        """Dispatches one batch.

        Args:
          variables: of the model, replicated over the mesh.
          batch: this process' part of a batch, on the host.

        Returns:
          logits [B, C], row int32 [B] and mask bool [B] on the devices, perhaps still computing.
        """
        return self._mapped(variables, parallel.to_devices(batch, self._mesh))


def collect_logits(
    forward: Callable[[Batch], dict[str, Any]], batches: Iterable[Batch]
) -> ClipLogits:
    """Runs the batches and gathers one answer per clip.

    Padding (mask False) is left out. Several views of a clip are averaged as probabilities, not
    as logits: a mixture of the views' opinions, in which one very confident view does not
    outvote the others.

    Args:
      forward: batch -> logits [B, C], row [B], mask [B].
      batches: host batches.
    """
    sums: dict[int, np.ndarray] = {}
    views: dict[int, int] = {}

    def take(output):
        logits, rows, mask = (parallel.to_host(output[k]) for k in ("logits", "row", "mask"))
        log_probabilities = metrics.log_softmax(logits)
        for row, values in zip(rows[mask].tolist(), log_probabilities[mask], strict=True):
            sums[row] = np.logaddexp(sums[row], values) if row in sums else values
            views[row] = views.get(row, 0) + 1

    pending = None
    for batch in batches:
        output = forward(batch)
        # The device works on this batch while the one before it is read.
        if pending is not None:
            take(pending)
        pending = output
    if pending is not None:
        take(pending)
    rows = np.array(list(sums), np.int32)
    logits = [sums[row] - np.log(views[row]) for row in sums]
    return ClipLogits(rows, np.stack(logits) if logits else np.zeros((0, 0)))


SCORES = ("loss", "war", "uar", "macro_f1")


class Evaluator:
    """Scores some rows of a dataset again and again, as training goes on.

    Args:
      forward: the model's forward pass.
      config: the experiment; `config.data` and `config.evaluation` are read.
      dataset: an open dataset.
      rows: int [n] rows to score.
      labels: int32 [rows of the dataset], class index (`Split.labels`).
      prefix: the first part of the names, such as "validation".
    """

    def __init__(
        self,
        forward: Forward,
        config: Any,
        dataset: Dataset,
        rows: np.ndarray,
        labels: np.ndarray,
        prefix: str,
    ):
        self._forward, self._config, self._dataset = forward, config, dataset
        self._rows, self._labels, self._prefix = rows, labels, prefix

    def run(self, variables: Any) -> Iterator[tuple[str, float]]:
        """Yields (name, value) of loss (cross-entropy, no smoothing), WAR, UAR and macro F1."""
        clips = self.collect(variables)
        labels = self._labels[clips.rows]
        confusion = metrics.confusion_matrix(labels, clips.logits.argmax(-1), clips.logits.shape[1])
        loss = metrics.negative_log_likelihood(clips.logits, labels).mean()
        yield f"{self._prefix}/loss", float(loss)
        yield f"{self._prefix}/war", float(metrics.war(confusion))
        yield f"{self._prefix}/uar", float(metrics.uar(confusion))
        yield f"{self._prefix}/macro_f1", float(metrics.macro_f1(confusion))

    def collect(self, variables: Any, progress: bool = False) -> ClipLogits:
        """Returns the logits of every row, each once."""
        settings, data = self._config.evaluation, self._config.data
        size = -(-settings.batch_size // self._forward.devices) * self._forward.devices
        batches = evaluation_batches(
            self._dataset,
            self._rows,
            self._labels,
            batch_size=size,
            views=settings.views,
            num_frames=data.num_frames,
            image_size=data.image_size,
            max_seconds=data.max_seconds,
            modalities=tuple(data.modalities),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=data.threads,
        )
        total = -(-len(self._rows) * settings.views // size)
        bar = tqdm(batches, self._prefix, total, unit=" batches", disable=not progress, leave=False)
        return collect_logits(lambda batch: self._forward(variables, batch), bar)
