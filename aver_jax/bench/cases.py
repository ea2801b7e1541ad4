"""Benchmark cases (a task, a model and its sizes) and the named sets of them. Imports no jax."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import Any

from aver_jax.errors import UserError

TASKS = ("train", "inference", "relevance", "spectrogram", "augmentation", "input")
# The other tasks time the front end or the input pipeline, without a model.
MODEL_TASKS = ("train", "inference", "relevance")


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the benchmark; JSON-serialisable with `dataclasses.asdict`.

    Attributes:
      name: unique within a set; used in tables and as a file name.
      task: one of `TASKS`.
      model: fields of `config.model`, dtype included; {} without a model.
      batch_size: clips per call.
      num_frames: T.
      image_size: H = W, pixels.
      seconds: of audio, in the longest clip.
      modalities: their arrays in a batch: "frames", "audio" or both.
    """

    name: str
    task: str
    model: dict[str, Any]
    batch_size: int
    num_frames: int
    image_size: int
    seconds: float
    modalities: tuple[str, ...]

    @property
    def dtype(self) -> str:
        """The dtype of the computation, "float32" or "bfloat16"."""
        return self.model.get("dtype", "float32")

    @property
    def has_model(self) -> bool:
        """Whether a model takes part."""
        return self.task in MODEL_TASKS


def case_from_dict(fields: dict[str, Any]) -> Case:
    """Returns the case that `dataclasses.asdict` gave, also when it went through JSON."""
    return Case(**fields | {"modalities": tuple(fields["modalities"])})


# Width, heads and depth: those of `models.timesformer.timesformer.SIZES`, which imports jax, and
# "mini" to test that everything works.
_TRANSFORMERS = {"mini": (32, 2, 2), "Ti": (192, 3, 12), "S": (384, 6, 12), "B": (768, 12, 12)}


def timesformer(
    size: str, task: str, batch_size: int, frames: int, image_size: int, dtype: str,
    remat: str = "none", unrolled: bool = False,
) -> Case:  # fmt: skip
    """Returns a TimeSformer case; `size` is mini, Ti, S or B; `unrolled`: no scan over layers."""
    width, heads, depth = _TRANSFORMERS[size]
    model = {
        "name": "timesformer",
        "attention": "divided_space_time",
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "patch_size": 16,
        "image_size": image_size,
        "num_frames": frames,
        "drop_path": 0.0,
        "remat": remat if task == "train" else "none",
        "unroll": depth if unrolled else 1,
        "dtype": dtype,
    }
    name = f"timesformer_{size}_{task}_{frames}x{image_size}_b{batch_size}"
    name += "_unrolled" if unrolled else ""
    return Case(name, task, model, batch_size, frames, image_size, 0.0, ("frames",))


_RESNET = {
    "stage_sizes": (2, 2, 2, 2), "width": 64, "stem": "conv7", "features": 512,
    "scoring_hidden": 256, "aggregator": "lstm", "cnn": "2d",
}  # fmt: skip


def resnet(
    network: str, task: str, batch_size: int, frames: int, image_size: int, seconds: float,
    dtype: str, **fields: Any,
) -> Case:  # fmt: skip
    """Returns a case of the ResNet family; `network` is video, audio or a fusion network.

    The network is ResNet-18 and LSTM(512), as in the thesis, unless `fields` change it.
    """
    if network in ("video", "audio"):
        title, model = "resnet_lstm", {"name": "resnet_lstm", "modality": network}
        modalities = ("frames",) if network == "video" else ("audio",)
    else:
        title, model = "mrpn", {"name": "mrpn", "network": network, "modality_dropout": 0.0}
        modalities = ("frames", "audio")
    sizes = [f"{frames}x{image_size}"] if "frames" in modalities else []
    sizes += [f"{seconds:g}s"] if "audio" in modalities else []
    name = f"{title}_{network}_{task}_{'_'.join(sizes)}_b{batch_size}"
    model = {**model, **_RESNET, **fields, "dtype": dtype}
    return Case(name, task, model, batch_size, frames, image_size, seconds, modalities)


def without_model(task: str, batch_size: int, frames: int, image_size: int, seconds: float) -> Case:
    """Returns a case of the front end or the input pipeline."""
    if task == "spectrogram":
        name, modalities = f"{task}_{seconds:g}s_b{batch_size}", ("audio",)
    else:
        name, modalities = f"{task}_{frames}x{image_size}_b{batch_size}", ("frames",)
    return Case(name, task, {}, batch_size, frames, image_size, seconds, modalities)


SETS = {
    # For an accelerator of 80 GB or more: the papers' sizes. Activations kept for the backward pass
    # of B take 1.9 GB a clip without remat and 0.4 GB with "dots".
    "full": (
        *(timesformer("B", task, 64, 8, 224, "bfloat16", "dots") for task in MODEL_TASKS),
        *(timesformer("S", task, 64, 8, 224, "bfloat16", "dots") for task in MODEL_TASKS),
        resnet("video", "train", 32, 16, 224, 0.0, "bfloat16"),
        resnet("audio", "train", 32, 0, 0, 5.0, "bfloat16"),
        resnet("n2", "train", 32, 16, 224, 5.0, "bfloat16"),
        resnet("n2", "inference", 32, 16, 224, 5.0, "bfloat16"),
        without_model("spectrogram", 64, 0, 0, 5.0),
        without_model("augmentation", 64, 8, 224, 0.0),
        without_model("input", 32, 8, 224, 0.0),
    ),
    # For two CPU cores: one TimeSformer size and ResNets of half the layers. Each case takes about
    # half a minute, compilation by all implementations included.
    "reduced": (
        timesformer("S", "train", 2, 8, 64, "float32", unrolled=True),
        timesformer("S", "inference", 4, 8, 64, "float32"),
        timesformer("S", "relevance", 4, 8, 64, "float32"),
        resnet("video", "train", 4, 4, 64, 0.0, "float32", stage_sizes=(1, 1, 1, 1)),
        resnet("audio", "train", 4, 0, 0, 1.5, "float32", stage_sizes=(1, 1, 1, 1)),
        resnet("n2", "train", 4, 4, 64, 1.0, "float32", stage_sizes=(1, 1, 1, 1)),
        resnet("n2", "inference", 4, 4, 64, 1.0, "float32", stage_sizes=(1, 1, 1, 1)),
        without_model("spectrogram", 8, 0, 0, 2.0),
        without_model("augmentation", 8, 8, 96, 0.0),
        without_model("input", 32, 8, 224, 0.0),
    ),
    # Every task in one minute, to test that it works.
    "mini": (
        *(timesformer("mini", task, 2, 2, 32, "float32") for task in MODEL_TASKS),
        resnet("n2", "train", 2, 2, 32, 1.0, "float32", width=8, stage_sizes=(1,), features=16),
        without_model("spectrogram", 2, 0, 0, 1.0),
        without_model("augmentation", 2, 2, 32, 0.0),
        without_model("input", 4, 2, 32, 0.0),
    ),
}

#: What `aver bench --sweep` can vary.
SWEEPS = ("batch", "frames", "resolution", "depth", "devices")

# The case that sweeps start from, unless one is chosen.
SWEPT = {
    "full": SETS["full"][0],
    "reduced": timesformer("Ti", "train", 4, 8, 64, "float32"),
    "mini": SETS["mini"][0],
}


def matching_cases(cases: Sequence[Case], pattern: str) -> list[Case]:
    """Returns the cases whose names match a glob, or contain a pattern without wildcards.

    Raises:
      UserError: no case matches.
    """
    globbed = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = [case for case in cases if fnmatch.fnmatchcase(case.name, globbed)]
    if not found:
        raise UserError(
            f"no case matches {pattern!r}; choose from: {', '.join(case.name for case in cases)}"
        )
    return found
