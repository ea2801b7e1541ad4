"""From a prepared dataset to batches: protocols, temporal sampling, decoding, sharded batching."""

from aver_jax.input.cache import ClipCache, ClipIndex, cache_bytes, decode_cache
from aver_jax.input.clips import SAMPLE_RATE, ClipShape, clip_arrays, clip_window
from aver_jax.input.dataset import Dataset, open_dataset
from aver_jax.input.decode import decode_frames, decode_image, resize
from aver_jax.input.pipeline import (
    Batch,
    Loader,
    SideBySide,
    clips_cut,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from aver_jax.input.protocols import DEFAULT_PROTOCOLS, PROTOCOLS, TARGETS, Split, split

__all__ = [
    "DEFAULT_PROTOCOLS",
    "PROTOCOLS",
    "SAMPLE_RATE",
    "TARGETS",
    "Batch",
    "ClipCache",
    "ClipIndex",
    "ClipShape",
    "Dataset",
    "Loader",
    "SideBySide",
    "Split",
    "cache_bytes",
    "clip_arrays",
    "clip_window",
    "clips_cut",
    "decode_cache",
    "decode_frames",
    "decode_image",
    "evaluation_batches",
    "open_dataset",
    "resize",
    "split",
    "steps_per_epoch",
    "training_batches",
]
