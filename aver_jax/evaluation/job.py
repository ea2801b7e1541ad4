"""The evaluation job: logits of every clip of a split, their scores, and the result files."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aver_jax.audit.stored import audit_line, best_baseline, best_baseline_of_fold, read_audit
from aver_jax.errors import UserError
from aver_jax.evaluation import control_scores, metrics, scores
from aver_jax.evaluation.clip_batches import fits_in_memory
from aver_jax.evaluation.controls import check_clips, controls_of
from aver_jax.evaluation.evaluator import ClipLogits, Evaluator, evaluation_loader
from aver_jax.evaluation.forward import compiled_forward
from aver_jax.input import PROTOCOLS, Dataset, Split, open_dataset
from aver_jax.input import split as split_dataset
from aver_jax.runs.run_folder import LoadedRun, load_run, split_of_run
from aver_jax.runtime.atomic_files import check_writable, csv_text, write_whole
from aver_jax.runtime.compilation_cache import use_compilation_cache
from aver_jax.runtime.data_parallel import make_mesh, replicated

SPLITS = ("test", "validation", "train")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of a run on one split, and what they were computed from.

    Attributes:
      results: `scores.score_clips`, the split's description, and `trivial`, the best trivial
        baseline on the test split (`audit.stored`; None without an audit); JSON types only.
      clips: log probabilities per clip, as trained, of the model and of its branches.
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


def validation_evaluator(
    model: Any, config: Any, dataset: Dataset, split: Split, mesh: jax.sharding.Mesh
) -> Evaluator:
    """Returns the evaluator that training asks after each epoch; names begin with "validation/".

    It looks at all frames of a clip whatever `config.data.cache` is, but with a cache decodes them
    once.
    """
    forward = compiled_forward(model, config, mesh)
    return Evaluator(
        forward, evaluation_loader(config, mesh), dataset, split.validation, split.labels,
        "validation", config.evaluation.views, keep=config.data.cache != "none",
    )  # fmt: skip


def evaluate_run(
    folder: str | Path,
    *,
    split: str = "test",
    checkpoint: str = "best",
    data: str | Path | None = None,
    protocol: str | None = None,
    fold: int | None = None,
    views: int | None = None,
    temperature: bool = False,
    batch_size: int | None = None,
    features: bool = False,
    controls: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Scores a run on one split of its protocol and fold.

    Args:
      folder: the run folder.
      split: "test", "validation" or "train".
      checkpoint: "best", "last" or a step.
      data: prepared dataset, default the one the run was trained on.
      protocol, fold: which clips are tested, default those of the run.
      views: time slices per clip whose probabilities are averaged; default the run's own.
      temperature: also fit a temperature on the validation split.
      batch_size: clips at a time, rounded up to a multiple of the devices; default the run's own.
      features: also give the features of every clip (`Evaluation.clips.features`).
      controls: also score the same clips with something taken away (`controls.controls_of`).
      progress: show a bar.

    Raises:
      UserError: no such run, checkpoint or dataset; a dataset of other classes; controls of fewer
        than 2 clips.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    run = load_run(folder, checkpoint)
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.data.path = str(data or config.data.path)
        config.data.protocol = protocol or config.data.protocol
        config.data.fold = fold or config.data.fold
        config.evaluation.views = views or config.evaluation.views
        config.evaluation.batch_size = batch_size or config.evaluation.batch_size
    if not (config.data.path and config.data.protocol):
        raise UserError(
            f"{folder} was not trained on a dataset; give one: --data DIR --protocol NAME"
        )
    dataset = open_dataset(config.data.path)
    check_dataset(run, dataset)
    clips_of = split_dataset(dataset, config.data.protocol, config.data.fold, config.data.target)
    check_unseen(run, dataset, clips_of, split)
    rows = getattr(clips_of, split)
    if controls:
        check_clips(len(rows))
    mesh = make_mesh()
    forward = compiled_forward(run.model, config, mesh, features)
    variables = jax.device_put(run.variables, replicated(mesh))
    loader, num_views = evaluation_loader(config, mesh), config.evaluation.views

    def evaluator_of(name, keep=False):
        of_split = getattr(clips_of, name)
        return Evaluator(forward, loader, dataset, of_split, clips_of.labels, name, num_views, keep)

    keep = controls and fits_in_memory(len(rows), num_views, loader)
    evaluator = evaluator_of(split, keep)
    clips = evaluator.collect(variables, progress)
    labels = clips_of.labels[clips.rows]
    modalities = list(config.data.modalities)
    results = {
        "run": Path(folder).resolve().name,
        "dataset": dataset.name,
        "protocol": clips_of.name,
        "fold": int(clips_of.fold),
        "target": clips_of.target,
        "split": split,
        "checkpoint": checkpoint,
        "step": int(run.step),
        "views": int(config.evaluation.views),
        "dropped": int(clips_of.dropped),
        "classes": list(run.classes),
        "modalities": modalities,
        "untrained": clips_of.untrained(run.classes),
        "trivial": _trivial(dataset, clips_of, modalities) if split == "test" else None,
        **scores.score_clips(
            clips.logits,
            labels,
            dataset.index["actor"][clips.rows],
            dataset.index["sex"][clips.rows],
            run.classes,
            branches=clips.branches,
        ),
    }
    if controls:
        predictions = {
            control.name: (
                control.detail,
                evaluator.collect(variables, progress, control.batches).logits.argmax(-1),
            )
            for control in controls_of(loader.shape)
        }
        results["controls"] = control_scores.score_controls(
            clips.logits.argmax(-1),
            predictions,
            labels,
            dataset.index["actor"][clips.rows],
            len(run.classes),
        )
    fitted = 1.0
    if temperature:
        held_out = clips
        if split != "validation":
            held_out = evaluator_of("validation").collect(variables, progress)
        held_out_labels = clips_of.labels[held_out.rows]
        fitted = metrics.fit_temperature(held_out.logits, held_out_labels)
        results["temperature"] = {
            "value": fitted,
            "fitted_clips": len(held_out_labels),
            **scores.calibration(clips.logits / fitted, labels),
        }
    return Evaluation(results, clips, labels, dataset, fitted)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Writes results.json, confusion.csv, per_actor.csv, confusion.png and reliability.png.

    A model whose branches have logits of their own gets branches.png too, controls controls.csv.
    """
    from aver_jax.report import figures  # matplotlib: half a second that training need not wait for

    out.mkdir(parents=True, exist_ok=True)
    results = evaluation.results
    write_whole(out / "confusion.png", figures.png(figures.confusion(results)))
    write_whole(out / "reliability.png", figures.png(figures.reliability(results)))
    if "branches" in results:
        write_whole(out / "branches.png", figures.png(figures.branches(results)))
    # Those of an earlier evaluation may be of another checkpoint.
    (out / "controls.csv").unlink(missing_ok=True)
    if "controls" in results:
        table = control_scores.controls_rows(results["controls"])
        write_whole(out / "controls.csv", csv_text(table))
    scores.write_files(results, out)


def predictions_csv(evaluation: Evaluation) -> str:
    """Returns one line per clip: row, clip_id, actor, label, prediction, a probability per class.

    These probabilities carry the temperature where one was fitted. After them come, as trained,
    those of each branch with logits of its own, in columns such as "video ANG".
    """
    classes, index = evaluation.results["classes"], evaluation.dataset.index
    branches = evaluation.clips.branches
    columns_of = [evaluation.probabilities, *(np.exp(own) for own in branches.values())]
    columns = [f"{branch} {name}" for branch in branches for name in classes]
    table = [["row", "clip_id", "actor", "label", "prediction", *classes, *columns]]
    for row, label, probabilities in zip(
        evaluation.clips.rows, evaluation.labels, np.concatenate(columns_of, 1), strict=True
    ):
        name = classes[int(probabilities[: len(classes)].argmax())]
        known = index["clip_id"][row], index["actor"][row], classes[label], name
        table.append([int(row), *known, *map(float, probabilities)])
    return csv_text(table)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `aver evaluate`."""
    parser.add_argument("run", type=Path, help="run folder, the --workdir of aver train")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: test")
    parser.add_argument("--checkpoint", default="best", help="best (default), last, or a step")
    parser.add_argument("--data", type=Path, help="prepared dataset (default: the run's own)")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        metavar="NAME",
        help="one of docs/protocols.md (default: the run's own)",
    )
    parser.add_argument("--fold", type=_positive, help="default: the run's own")
    parser.add_argument("--views", type=_positive, help="time slices per clip to average")
    parser.add_argument(
        "--temperature",
        action="store_true",
        help="calibrate the probabilities on the validation split",
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE.csv", help="write the probabilities of every clip"
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also score the clips with frames in another order, one frame repeated, silence, or "
        "the sound or face of another clip",
    )
    parser.add_argument("--out", type=Path, help="results folder (default: RUN/evaluation/SPLIT)")
    parser.add_argument("--batch-size", type=_positive, help="clips at a time")


def run(args: argparse.Namespace) -> int:
    """Runs `aver evaluate` and prints the scores."""
    use_compilation_cache()
    # Before the work, not after it.
    check_writable(args.out or args.run / "evaluation", "--out")
    if args.predictions:
        check_writable(args.predictions.parent, "--predictions")
    evaluation = evaluate_run(
        args.run,
        split=args.split,
        checkpoint=args.checkpoint,
        data=args.data,
        protocol=args.protocol,
        fold=args.fold,
        views=args.views,
        temperature=args.temperature,
        batch_size=args.batch_size,
        controls=args.controls,
        progress=sys.stderr.isatty(),
    )
    if jax.process_index() == 0:
        # The scores of other data must not replace those of the run's own.
        name, found = args.split, evaluation.results
        if args.data or args.protocol or args.fold:
            name = f"{name}_{found['dataset']}_{found['protocol']}_{found['fold']}"
        out = args.out or args.run / "evaluation" / name
        write_evaluation(evaluation, out)
        trivial = ""
        if found["split"] == "test":
            source = evaluation.dataset.path, found["protocol"], found["target"]
            trivial = audit_line(*source, found["fold"], found["modalities"])
        print(scores.results_table(found, trivial))
        if args.controls:
            print(f"\n{control_scores.controls_table(found)}")
        print(f"\nwritten to {out}")
        if args.predictions:
            write_whole(args.predictions, predictions_csv(evaluation))
            note = f", calibrated with T = {evaluation.temperature:.3f}" if args.temperature else ""
            print(f"predictions of {len(evaluation.labels)} clips{note}: {args.predictions}")
    return 0


def _trivial(dataset: Dataset, clips: Split, modalities: list[str]) -> dict[str, Any] | None:
    """Returns the best trivial baseline that `aver audit` found, as `audit_line` tells it.

    That of the fold's test clips, or over all folds where it was not tried on them; None without an
    audit.
    """
    audit = read_audit(dataset.path, clips.name, clips.target)
    if audit is None:
        return None
    own = best_baseline_of_fold(audit, clips.fold, modalities)
    return own or best_baseline(audit, modalities)


def check_unseen(run: LoadedRun, dataset: Dataset, clips: Split, split: str) -> None:
    """Raises UserError if clips to be tested have trained the run, or chosen its checkpoint."""
    own = split_of_run(run.config, run.dataset, dataset) if split == "test" else None
    if own is None:
        return
    seen = np.intersect1d(clips.test, own.seen)
    if len(seen):
        raise UserError(
            f"{len(seen)} of the {len(clips.test)} test clips of {clips.name} fold {clips.fold} "
            f"trained this run or chose its checkpoint ({own.name} fold {own.fold}); leave "
            "--protocol and --fold out, or train on that fold"
        )


def check_dataset(run: LoadedRun, dataset: Dataset) -> None:
    """Raises UserError for other classes than the run's; notes another preparation on stderr."""
    if dataset.classes != run.classes:
        raise UserError(
            f"{dataset.path} has the classes {', '.join(dataset.classes)}, the run {run.folder} "
            f"{', '.join(run.classes)}; give a dataset with the same classes in the same order"
        )
    for name in ("detector", "margin", "size"):
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
