"""The prepared dataset on disk: its TFDS features, its writer and its index."""

import csv
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from data_prep.output import check_out, partial_folder, place, reported, start_partial

VERSION = "1.0.0"
# TFDS reads split "all" as the union of every split, and recurses without end when a split bears
# that name; the one split is therefore stored under another, and read as split="all".
STORED_SPLIT = "clips"
INDEX_COLUMNS = (
    "row",
    "clip_id",
    "actor",
    "sex",
    "age",
    "label",
    "intensity",
    "sentence",
    "voice_vote",
    "face_vote",
    "multimodal_vote",
    "frames",
    "seconds",
)
_SHARD_CLIPS = 256
_TEXTS = (
    "actor",
    "clip_id",
    "intensity",
    "sentence",
    "sex",
    "vote_voice",
    "vote_face",
    "vote_multimodal",
)


def features(classes: Sequence[str]):
    """Returns TFDS features of a prepared record; read and written without TensorFlow.

    JPEG frames and sound are `Text` features holding bytes: a uint8 `Tensor` reads fifteen times
    slower, and an `Image` feature imports TensorFlow.

    Args:
      classes: class names in label order.

    Returns:
      `tfds.features.FeaturesDict`: frames (JPEG bytes [F]), timestamps float32 [F] seconds,
      face_box float32 [F, 4] (x0, y0, x1, y1 in source pixels), face_found bool [F], source_size
      int32 [2] (height, width), pcm (int16 little-endian bytes, mono, 16 kHz), label, age int32
      (-1 unknown), and texts ("" unknown): actor, clip_id, intensity, sentence, sex, vote_voice,
      vote_face, vote_multimodal.
    """
    import numpy as np
    import tensorflow_datasets as tfds

    feature = tfds.features
    return feature.FeaturesDict(
        {
            "frames": feature.Sequence(feature.Text()),
            "timestamps": feature.Tensor(shape=(None,), dtype=np.float32),
            "face_box": feature.Tensor(shape=(None, 4), dtype=np.float32),
            "face_found": feature.Tensor(shape=(None,), dtype=np.bool_),
            "source_size": feature.Tensor(shape=(2,), dtype=np.int32),
            "pcm": feature.Text(),
            "label": feature.ClassLabel(names=list(classes)),
            "age": feature.Scalar(dtype=np.int32),
            **{name: feature.Text() for name in _TEXTS},
        }
    )


def index_row(row: int, record: dict) -> dict:
    """Returns the line of `index.csv` for a record whose label is a class name."""
    times = record["timestamps"]
    # The last frame is shown for as long as the frames before it.
    seconds = float(times[-1] - times[0]) * len(times) / (len(times) - 1)
    return {
        "row": row,
        "clip_id": record["clip_id"],
        "actor": record["actor"],
        "sex": record["sex"],
        "age": "" if record["age"] < 0 else record["age"],
        "label": record["label"],
        "intensity": record["intensity"],
        "sentence": record["sentence"],
        "voice_vote": record["vote_voice"],
        "face_vote": record["vote_face"],
        "multimodal_vote": record["vote_multimodal"],
        "frames": len(times),
        "seconds": f"{seconds:.3f}",
    }


class DatasetWriter:
    """Writes records, one at a time and in order, into a dataset that appears only when complete.

    Used as a context manager. Everything goes to a temporary folder beside `out`, which takes its
    place in `close`; leaving the block by an exception removes it, and the next start removes
    what a killed process left. Records are stored in the order in which they are added, so that
    row i of `index.csv` is item i of the data source.

    Args:
      out: folder of the dataset.
      name: dataset name, a Python identifier such as "crema_d".
      classes: class names in label order.
      preparation: further entries of `preparation.json` (detector, margin, size, ...).
      overwrite: replace a complete dataset at `out`.

    Raises:
      UserError: `out` exists and may not be replaced, or cannot be written.
    """

    def __init__(
        self,
        out: str | Path,
        name: str,
        classes: Sequence[str],
        preparation: dict,
        *,
        overwrite: bool = False,
    ) -> None:
        self.out = place(out)
        self.rows = 0
        self._name, self._classes = name, tuple(classes)
        self._preparation = {"dataset": name, "classes": list(classes), **preparation}
        self._overwrite = overwrite
        self._partial = partial_folder(self.out)

    def __enter__(self) -> "DatasetWriter":
        check_out(self.out, self._overwrite)
        start_partial(self.out)
        try:
            with reported(self.out, RuntimeError):
                path = self._partial / "index.csv"
                self._index_file = path.open("w", newline="", encoding="utf-8")
                self._index = csv.DictWriter(self._index_file, INDEX_COLUMNS, lineterminator="\n")
                self._index.writeheader()
                self._writer = self._sequential_writer()
        except BaseException:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise
        return self

    def _sequential_writer(self):
        import tensorflow_datasets as tfds

        # TFDS's shuffling writer holds 1 GB in memory and then needs TensorFlow's file system.
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=self._name,
            version=tfds.core.Version(VERSION),
            data_dir=str(self._partial),
            module_name="data_prep",
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            description="Face crops and 16 kHz sound of one clip per record.",
            features=features(self._classes),
        )
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=_SHARD_CLIPS, file_format="array_record"
        )
        writer.initialize_splits([STORED_SPLIT])
        return writer

    def add(self, record: dict) -> None:
        """Appends one record (`data_prep.clip.prepare_clip`); its label is a class name."""
        # ArrayRecord reports a full disk as a RuntimeError.
        with reported(self.out, RuntimeError):
            stored = {name: value for name, value in record.items() if name != "notes"}
            self._writer.add_examples({STORED_SPLIT: [stored]})
            self._index.writerow(index_row(self.rows, record))
        self.rows += 1

    def close(
        self, skipped: Iterable[tuple[str, str]] = (), extra_files: Iterable[Path] = ()
    ) -> None:
        """Completes the dataset and moves it into place.

        Args:
          skipped: (file, reason) for `skipped.csv`.
          extra_files: files copied beside the index (the synthetic corpus' truth).
        """
        with reported(self.out, RuntimeError):
            self._writer.close_all()
            self._index_file.close()
            self._write_beside(skipped, extra_files)
            old = self.out.with_name(f".{self.out.name}.old-{os.getpid()}")
            if self.out.exists() and any(self.out.iterdir()):
                self.out.rename(old)
            self._partial.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)

    def _write_beside(
        self, skipped: Iterable[tuple[str, str]], extra_files: Iterable[Path]
    ) -> None:
        # A file name may hold bytes that are no text.
        with (self._partial / "skipped.csv").open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("file", "reason"))
            table.writerows(skipped)
        for extra in extra_files:
            shutil.copy(extra, self._partial / extra.name)
        text = json.dumps(self._preparation, indent=2) + "\n"
        (self._partial / "preparation.json").write_text(text, encoding="utf-8")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # On a full disk the last line cannot be written even now.
        with suppress(OSError):
            self._index_file.close()
        shutil.rmtree(self._partial, ignore_errors=True)


@dataclass
class Summary:
    """What a preparation did.

    out: the dataset, or None when no clip could be prepared and none was written.
    prepared: number of clips written.
    skipped: (file, reason) of clips that could not be used.
    excluded: number of files left out on purpose.
    faces: {(sampled frames with the face, sampled frames): number of clips}.
    notes: {what a person should know of clips: their files}.
    seconds: wall time.
    """

    out: Path | None = None
    prepared: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    excluded: int = 0
    faces: dict[tuple[int, int], int] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0


def write_dataset(
    out: str | Path,
    name: str,
    classes: Sequence[str],
    jobs: Sequence,
    preparation,
    *,
    workers: int | None = None,
    source: str | Path | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    excluded: Sequence[tuple[str, str]] = (),
    extra_files: Sequence[Path] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Prepares clips and writes the dataset, which appears at `out` only when it is complete.

    Args:
      out: folder to make.
      name: dataset name.
      classes: class names in label order.
      jobs: `data_prep.clip.Job` of every clip, in the order in which they are stored.
      preparation: `data_prep.clip.Preparation`.
      workers: processes; None for one per core, 0 for none but this one.
      source: folder to which `skipped.csv` is relative.
      skipped: (file, reason) of files that a reader found unusable.
      excluded: (file, reason) of files left out on purpose; listed, not counted as skipped.
      extra_files: files copied into the dataset.
      overwrite: replace a complete dataset at `out`.
      progress: show a progress bar when standard error is a terminal.

    Raises:
      UserError: `out` cannot be written, or the detector is not installed.
    """
    from tqdm import tqdm

    from data_prep.clip import sampled_faces
    from data_prep.corpora.corpus import listed
    from data_prep.faces import check_detector
    from data_prep.pool import prepared_clips
    from data_prep.workers import available_cores

    check_detector(preparation.detector)
    begin = time.perf_counter()
    if workers is None:
        workers = available_cores()
    workers = min(workers, len(jobs))
    source = Path(source or ".")
    summary = Summary(skipped=list(skipped), excluded=len(excluded))
    with (
        DatasetWriter(out, name, classes, preparation.to_json(), overwrite=overwrite) as writer,
        closing(prepared_clips(jobs, preparation, workers)) as results,
    ):
        bar = tqdm(
            results,
            "preparing",
            len(jobs),
            unit="clip",
            disable=None if progress else True,
        )
        for job, result in bar:
            if isinstance(result, dict):
                writer.add(result)
                seen = sampled_faces(result)
                summary.faces[seen] = summary.faces.get(seen, 0) + 1
                for note in result["notes"]:
                    summary.notes.setdefault(note, []).append(listed(job.path, source))
            else:
                summary.skipped.append((listed(job.path, source), str(result)))
        summary.prepared = writer.rows
        if writer.rows:
            writer.close([*summary.skipped, *excluded], extra_files)
            summary.out = writer.out
    summary.seconds = time.perf_counter() - begin
    return summary
