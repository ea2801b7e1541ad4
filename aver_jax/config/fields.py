"""The fields of an experiment: their defaults and what they mean."""

import textwrap
from typing import Any

from ml_collections import ConfigDict

# Dotted name -> (default, meaning). An empty ConfigDict has the fields of the part that reads it.
FIELDS: dict[str, tuple[Any, str]] = {
    "seed": (0, "fixes initial weights, order of clips and augmentation"),
    "data.path": ("", "prepared dataset, the --out of aver prepare"),
    "data.protocol": ("", "how actors are split; one of docs/protocols.md"),
    "data.fold": (1, "fold of the protocol, from 1"),
    "data.target": ("intended", "label: intended | voice | face | multimodal (crowd votes)"),
    "data.modalities": (("video",), "what a batch carries, of video and audio"),
    "data.num_frames": (8, "frames of a clip"),
    "data.image_size": (224, "side of a frame, pixels"),
    "data.min_slice": (0.5, "training slices are U(min_slice, 1) of a clip; 1.0: whole clips"),
    "data.max_seconds": (6.0, "longer clips are cut to their middle"),
    "data.threads": (8, "threads that decode; 0: none beside the main one"),
    "data.cache": (
        "none",
        "none: decode as batches are made | host: decode once, into the host's memory | device: "
        "into the accelerators' memory, where the step takes its batches from",
    ),
    "data.cache_frames": (
        0,
        "evenly spaced frames of a clip, of which a slice takes the nearest in time (usually 16); "
        "0: all frames, without a cache",
    ),
    "model.name": ("", "timesformer | resnet_lstm | mrpn; further fields are the network's"),
    "frontend.normalization": ("per_clip", "of frames; a name of frontend/normalize.py"),
    "frontend.augment": (ConfigDict(), "augmentation of frames; fields of frontend/augment.py"),
    "frontend.level": (
        "off",
        "of the sound: off | rms, which brings the speech of every clip to -26 dB below full scale",
    ),
    "frontend.spectrogram.n_fft": (512, "samples of the transform, at 16 kHz"),
    "frontend.spectrogram.window": (512, "samples of the Hann window"),
    "frontend.spectrogram.hop": (64, "samples between frames"),
    "frontend.spectrogram.scale": ("log1p", "log1p | db"),
    "frontend.spectrogram.bands": (0, "mel bands; 0: all n_fft / 2 + 1 frequencies"),
    "frontend.spectrogram.segment": (250, "frames of a segment; 1.0 s at a hop of 64"),
    "frontend.spectrogram.overlap": (0.5, "share of a segment"),
    "frontend.spectrogram.mean": (0.0, "subtracted from every value"),
    "frontend.spectrogram.deviation": (1.0, "std that every value is divided by"),
    "frontend.sound": (ConfigDict(), "augmentation of audio; fields of frontend/sound.py"),
    "batch_size": (64, "clips of a step, over all devices"),
    "epochs": (50.0, "passes over the training clips"),
    "optimizer.name": ("adamw", "adamw | sgd"),
    "optimizer.lr": (1e-3, "peak learning rate"),
    "optimizer.weight_decay": (0.05, "of kernels"),
    "optimizer.b1": (0.9, "of AdamW's first moment"),
    "optimizer.b2": (0.999, "of AdamW's second moment"),
    "optimizer.momentum": (0.9, "of SGD"),
    "optimizer.clip_norm": (1.0, "largest global norm of the gradients; 0.0: no clipping"),
    "optimizer.accumulate": (
        1,
        "microbatches that each device works through in a step; batch statistics are those of a "
        "microbatch",
    ),
    "schedule.name": ("cosine", "cosine | constant | plateau"),
    "schedule.warmup_epochs": (5.0, "epochs of linear warm-up"),
    "schedule.plateau_factor": (0.5, "of the learning rate when the validation loss stops falling"),
    "schedule.plateau_patience": (10, "validations without improvement before that"),
    "label_smoothing": (0.0, "of the cross-entropy"),
    "ema_decay": (0.0, "of parameters and batch statistics; 0.0: no moving average"),
    "init.model": (
        "",
        "run folder whose parameters start this run; init.SUBTREE: only that part of them",
    ),
    # Batch statistics move all the same: training normalises by the batch, and they must be what
    # evaluation finds. In late fusion the branches' stay, since the model never normalises them by
    # the batch.
    "freeze": ((), "path patterns of parameters that stay, e.g. blocks, patch_embed"),
    "parallel": ("shard_map", "shard_map | pmap (one process)"),
    "steps_per_dispatch": (1, "steps of one compiled call; more need data.cache=device"),
    "distributed": (False, "several processes (hosts) train together"),
    "evaluation.every_epochs": (1.0, "epochs between validations"),
    "evaluation.batch_size": (64, "clips at a time"),
    "evaluation.views": (1, "time slices of a clip whose probabilities are averaged"),
    "evaluation.select": (
        "validation/war",
        "metric that names the best checkpoint; a loss is minimised",
    ),
    "log_every_steps": (10, "steps between lines of metrics.jsonl"),
}


def base_config() -> ConfigDict:
    """Returns every field of an experiment with its default; a config file sets them.

    The model's own fields (`config.model`) are those of its module, and checked when it is built;
    the augmentations are those of `aver_jax.frontend.augment` (`config.frontend.augment`) and of
    `aver_jax.frontend.sound` (`config.frontend.sound`).
    """
    config = ConfigDict()
    for name, (default, _) in FIELDS.items():
        *parents, leaf = name.split(".")
        node = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[leaf] = ConfigDict() if isinstance(default, ConfigDict) else default
    return config


def described_fields() -> list[str]:
    """Returns the fields as lines of a help text: the flag with its default, then the meaning."""
    lines = []
    for name, (default, meaning) in FIELDS.items():
        value = "" if isinstance(default, ConfigDict) else f"={default}"
        lines.append(f"  --config.{name}{value}")
        lines += textwrap.wrap(meaning, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines
