"""The evaluation job: logits of every clip of a split, their scores, and the files that hold them."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from aver_jax import metrics, parallel, scores
from aver_jax.errors import UserError
from aver_jax.frontend import evaluation_inputs
from aver_jax.input import Dataset, evaluation_batches, open_dataset
from aver_jax.input import split as split_dataset
from aver_jax.runs import LoadedRun, load_run

SPLITS = ("test", "validation", "train")

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


def make_forward(model: Any, config: Any, mesh: jax.sharding.Mesh) -> Forward:
    """Returns `forward(variables, host batch) -> {logits, row, mask}` for `Evaluator`."""
    return Forward(model, config, mesh)


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


class Evaluator:
    """Scores some rows of a dataset again and again, as training goes on.

    Args:
      forward: of `make_forward`.
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


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a run on one split, and what they were computed from.

    Attributes:
      results: `scores.score_clips` and the split's description; JSON types only.
      clips: log probabilities per clip, as trained.
      labels: int32 [n] of these clips.
      dataset: the dataset.
      temperature: divides the logits for calibrated probabilities; 1 unless fitted.
    """

    results: dict[str, Any]
    clips: ClipLogits
    labels: np.ndarray
    dataset: Dataset
    temperature: float

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [n, C], with the temperature applied."""
        return np.exp(metrics.log_softmax(self.clips.logits / self.temperature))


def evaluate_run(
    folder: str | Path,
    *,
    split: str = "test",
    checkpoint: str = "best",
    data: str | Path | None = None,
    views: int | None = None,
    temperature: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Scores a run on one split of its protocol and fold.

    Args:
      folder: the run folder.
      split: "test", "validation" or "train".
      checkpoint: "best", "last" or a step.
      data: prepared dataset, default the one the run was trained on.
      views: time slices per clip whose probabilities are averaged; default the run's own.
      temperature: also fit a temperature on the validation split.
      batch_size: clips at a time, rounded up to a multiple of the devices; default the run's own.
      progress: show a bar.

    Raises:
      UserError: no such run, checkpoint or dataset; a dataset of other classes.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    run = load_run(folder, checkpoint)
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.evaluation.views = views or config.evaluation.views
        config.evaluation.batch_size = batch_size or config.evaluation.batch_size
    dataset = open_dataset(data or config.data.path)
    _check_dataset(run, dataset)
    parts = split_dataset(dataset, config.data.protocol, config.data.fold, config.data.target)
    mesh = parallel.make_mesh()
    forward = make_forward(run.model, config, mesh)
    variables = jax.device_put(run.variables, parallel.replicated(mesh))

    def collect(part):
        rows = getattr(parts, part)
        evaluator = Evaluator(forward, config, dataset, rows, parts.labels, part)
        clips = evaluator.collect(variables, progress)
        return clips, parts.labels[clips.rows]

    clips, labels = collect(split)
    results = {
        "run": Path(folder).resolve().name,
        "dataset": dataset.name,
        "protocol": parts.name,
        "fold": int(parts.fold),
        "target": parts.target,
        "split": split,
        "checkpoint": checkpoint,
        "step": int(run.step),
        "views": int(config.evaluation.views),
        "dropped": int(parts.dropped),
        "classes": list(run.classes),
        **scores.score_clips(
            clips.logits,
            labels,
            dataset.index["actor"][clips.rows],
            dataset.index["sex"][clips.rows],
            run.classes,
        ),
    }
    fitted = 1.0
    if temperature:
        held_out, held_out_labels = (
            (clips, labels) if split == "validation" else collect("validation")
        )
        fitted = metrics.fit_temperature(held_out.logits, held_out_labels)
        results["temperature"] = {
            "value": fitted,
            "fitted_clips": len(held_out_labels),
            **scores.calibration(clips.logits / fitted, labels),
        }
    return Evaluation(results, clips, labels, dataset, fitted)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Writes results.json, confusion.csv, per_actor.csv, confusion.png and reliability.png."""
    from aver_jax.report import figures  # matplotlib: half a second that training need not wait for

    out.mkdir(parents=True, exist_ok=True)
    results = evaluation.results
    scores.write_whole(out / "confusion.png", figures.png(figures.confusion(results)))
    scores.write_whole(out / "reliability.png", figures.png(figures.reliability(results)))
    scores.write_files(results, out)


def predictions_csv(evaluation: Evaluation) -> str:
    """One line per clip: row, clip_id, actor, label, prediction, a probability per class.

    Probabilities carry the temperature where one was fitted.
    """
    classes, index = evaluation.results["classes"], evaluation.dataset.index
    table = [["row", "clip_id", "actor", "label", "prediction", *classes]]
    for row, label, probabilities in zip(
        evaluation.clips.rows, evaluation.labels, evaluation.probabilities, strict=True
    ):
        name = classes[int(probabilities.argmax())]
        known = index["clip_id"][row], index["actor"][row], classes[label], name
        table.append([int(row), *known, *(float(p) for p in probabilities)])
    return scores.csv_text(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver evaluate`."""
    parser.add_argument("run", type=Path, help="run folder, the --workdir of aver train")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--checkpoint", default="best", help="best (default), last, or a step")
    parser.add_argument("--data", type=Path, help="prepared dataset (default: the run's own)")
    parser.add_argument("--views", type=_positive, help="time slices per clip to average")
    parser.add_argument(
        "--temperature",
        action="store_true",
        help="calibrate the probabilities on the validation split",
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE.csv", help="write the probabilities of every clip"
    )
    parser.add_argument("--out", type=Path, help="results folder (default: RUN/evaluation/SPLIT)")
    parser.add_argument("--batch-size", type=_positive, help="clips at a time")


def run(args: argparse.Namespace) -> int:
    """Runs `aver evaluate` and prints the scores."""
    evaluation = evaluate_run(
        args.run,
        split=args.split,
        checkpoint=args.checkpoint,
        data=args.data,
        views=args.views,
        temperature=args.temperature,
        batch_size=args.batch_size,
        progress=sys.stderr.isatty(),
    )
    if jax.process_index() == 0:
        out = args.out or args.run / "evaluation" / args.split
        write_evaluation(evaluation, out)
        print(scores.results_table(evaluation.results))
        print(f"\nwritten to {out}")
        if args.predictions:
            args.predictions.parent.mkdir(parents=True, exist_ok=True)
            scores.write_whole(args.predictions, predictions_csv(evaluation))
            print(f"predictions of {len(evaluation.labels)} clips in {args.predictions}")
    return 0


def _check_dataset(run: LoadedRun, dataset: Dataset) -> None:
    if dataset.classes != run.classes:
        raise UserError(
            f"{dataset.path} has the classes {', '.join(dataset.classes)}, the run {run.folder} "
            f"{', '.join(run.classes)}; give a dataset with the same classes in the same order"
        )
    for name in ("detector", "margin"):
        theirs, ours = run.preparation.get(name), dataset.preparation.get(name)
        if theirs != ours:
            print(
                f"aver: note: {dataset.path} was prepared with {name} {ours}, the run was trained "
                f"with {theirs}; scores may suffer",
                file=sys.stderr,
            )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value
