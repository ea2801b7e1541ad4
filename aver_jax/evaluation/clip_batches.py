"""Evaluation batches of some clips, for several passes over them."""

import math
from collections.abc import Iterator

import numpy as np

from aver_jax.input import Batch, ClipShape, Dataset, Loader, evaluation_batches
from aver_jax.input.cache import available_memory
from aver_jax.modality import Modality

# The arrays of a batch that come from a clip's video, and those that come from its sound.
_ARRAYS = {
    Modality.VIDEO: ("frames", "frame_times"),
    Modality.AUDIO: ("audio", "audio_length"),
}
# The model and its compilation take memory beside the clips.
_SHARE_OF_MEMORY = 0.5


class ClipBatches:
    """The batches of `evaluation_batches`, which can be iterated over again and again.

    Args:
      dataset: an open dataset.
      rows: int [n] rows to evaluate.
      labels: int32 [rows of the dataset], class index (`Split.labels`).
      loader: how clips are read.
      views: time slices per clip.
      keep: whether the batches stay in memory, so that only the first whole pass decodes.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: np.ndarray,
        labels: np.ndarray,
        loader: Loader,
        views: int = 1,
        keep: bool = False,
    ):
        self._dataset, self._rows, self._labels = dataset, np.asarray(rows), labels
        self._loader, self._views, self._keep = loader, views, keep
        self._kept: list[Batch] = []

    @property
    def num_clips(self) -> int:
        """n, the clips in all batches of all processes together."""
        return len(self._rows)

    def __len__(self) -> int:
        return -(-len(self._rows) * self._views // self._loader.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self._kept:
            yield from self._kept
            return
        seen = []
        for batch in self._decoded(self._rows):
            if self._keep:
                seen.append(batch)
            yield batch
        self._kept = seen

    def with_others(self, modality: Modality, others: np.ndarray) -> Iterator[Batch]:
        """Yields the batches with the video, or the sound, of other clips.

        Everything else (the other modality, `label`, `row`, `mask`, `seed`) stays that of the clip.
        The other clip gives the view of the same number.

        Args:
          modality: what is taken from the other clip: with video `frames` and `frame_times`, with
            audio `audio` and `audio_length`.
          others: int [n], the position among the rows of the clip that is taken from, for each;
            it may be in any batch.
        """
        # Of kept batches only where no other process holds some of the clips.
        if self._kept and self._loader.process_count == 1:
            sources = self._gathered(others, _ARRAYS[modality])
        else:
            # With all of their modalities: those say which seconds of a clip are used.
            sources = self._decoded(self._rows[others])
        for batch, source in zip(self, sources, strict=True):
            yield batch | {name: source[name] for name in _ARRAYS[modality]}

    def _decoded(self, rows: np.ndarray) -> Iterator[Batch]:
        return evaluation_batches(self._dataset, rows, self._labels, self._loader, self._views)

    def _gathered(self, others: np.ndarray, names: tuple[str, ...]) -> Iterator[Batch]:
        """Yields arrays of the other clips, padded as `evaluation_batches` pads."""
        size, views = self._loader.batch_size, self._views
        last = len(self._rows) * views - 1
        for first in range(0, len(self) * size, size):
            clips, view = np.divmod(np.minimum(np.arange(first, first + size), last), views)
            places = [divmod(int(p), size) for p in others[clips] * views + view]
            yield {name: np.stack([self._kept[b][name][i] for b, i in places]) for name in names}


def fits_in_memory(clips: int, views: int, loader: Loader) -> bool:
    """Returns whether the batches of so many clips may be kept in this machine's memory."""
    available = available_memory()
    needed = clips * views * _bytes_of(loader.shape) / loader.process_count
    return available is None or needed <= _SHARE_OF_MEMORY * available


def _bytes_of(shape: ClipShape) -> int:
    return sum(math.prod(s) * np.dtype(t).itemsize for s, t in shape.arrays.values())
