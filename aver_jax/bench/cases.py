"""What is timed: a task, a model and its sizes; and the named sets of them. Knows no jax."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import Any

from aver_jax.errors import UserError

TASKS = ("train", "inference", "relevance", "spectrogram", "augmentation", "input")
# Of these the model is timed; the others are of the front end and of the input.
MODEL_TASKS = ("train", "inference", "relevance")


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the benchmark; JSON-serialisable with `dataclasses.asdict`.

    Attributes:
      name: stands in tables and names folders.
      task: one of `TASKS`.
      model: fields of `config.model`, dtype included; {} where no model takes part.
      batch_size: clips of a call.
      num_frames: T.
      image_size: side of a frame, pixels.
      seconds: of sound, of the longest clip.
      modalities: of "frames" and "audio".
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
        """Of the computation: "float32" or "bfloat16"."""
        return self.model.get("dtype", "float32")


def case_of(fields: dict[str, Any]) -> Case:
    """Returns the case of `dataclasses.asdict`, also after a trip through JSON."""
    return Case(**fields | {"modalities": tuple(fields["modalities"])})


# Width, heads and depth: the sizes of DeiT and ViT, as in `models.timesformer.SIZES`, which imports
# jax; and one that only shows that everything works.
_TRANSFORMERS = {"mini": (32, 2, 2), "Ti": (192, 3, 12), "S": (384, 6, 12), "B": (768, 12, 12)}


def timesformer(
    size: str, task: str, batch_size: int, frames: int, side: int, dtype: str,
    remat: str = "none", unrolled: bool = False,
) -> Case:  # fmt: skip
    """Returns a case of a TimeSformer; `size` is mini, Ti, S or B, `unrolled` without a loop."""
    width, heads, depth = _TRANSFORMERS[size]
    model = {
        "name": "timesformer",
        "attention": "divided_space_time",
        "width": width,
        "depth": depth,
        "num_heads": heads,
        "patch_size": 16,
        "image_size": side,
        "num_frames": frames,
        "drop_path": 0.0,
        "remat": remat if task == "train" else "none",
        "unroll": depth if unrolled else 1,
        "dtype": dtype,
    }
    name = f"timesformer_{size}_{task}_{frames}x{side}_b{batch_size}"
    name += "_unrolled" if unrolled else ""
    return Case(name, task, model, batch_size, frames, side, 0.0, ("frames",))


_RESNET = {
    "stage_sizes": (2, 2, 2, 2), "width": 64, "stem": "conv7", "features": 512,
    "scoring_hidden": 256, "aggregator": "lstm", "cnn": "2d",
}  # fmt: skip


def resnet(
    network: str, task: str, batch_size: int, frames: int, side: int, seconds: float, dtype: str,
    **fields: Any,
) -> Case:  # fmt: skip
    """Returns a case of the ResNet family; `network` is video, audio, or one of fusion's.

    The network is the thesis', ResNet-18 and LSTM(512), at every size of its inputs; `fields`
    change it.
    """
    if network in ("video", "audio"):
        title, model = "resnet_lstm", {"name": "resnet_lstm", "modality": network}
        modalities = ("frames",) if network == "video" else ("audio",)
    else:
        title, model = "mrpn", {"name": "mrpn", "network": network, "modality_dropout": 0.0}
        modalities = ("frames", "audio")
    sizes = [f"{frames}x{side}"] if "frames" in modalities else []
    sizes += [f"{seconds:g}s"] if "audio" in modalities else []
    name = f"{title}_{network}_{task}_{'_'.join(sizes)}_b{batch_size}"
    model = {**model, **_RESNET, **fields, "dtype": dtype}
    return Case(name, task, model, batch_size, frames, side, seconds, modalities)


def without_model(task: str, batch_size: int, frames: int, side: int, seconds: float) -> Case:
    """Returns a case of the front end or of the input pipeline."""
    if task == "spectrogram":
        name, modalities = f"{task}_{seconds:g}s_b{batch_size}", ("audio",)
    else:
        name, modalities = f"{task}_{frames}x{side}_b{batch_size}", ("frames",)
    return Case(name, task, {}, batch_size, frames, side, seconds, modalities)


SETS = {
    # For an accelerator of 80 GB or more: the sizes that the papers have. What a training of B
    # keeps for its backward pass is 1.9 GB a clip without remat, and 0.4 GB with "dots".
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
    # The same list with one size of TimeSformer and half the layers of the ResNets, for two cores:
    # each case in about half a minute, compilation on all sides included.
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
    # Everything once, in a minute: that it works, not how fast.
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

# What sweeps grow, unless a case is chosen.
SWEPT = {
    "full": SETS["full"][0],
    "reduced": timesformer("Ti", "train", 4, 8, 64, "float32"),
    "mini": SETS["mini"][0],
}


def matching(cases: Sequence[Case], pattern: str) -> list[Case]:
    """Returns the cases whose names a shell-style pattern matches, or contain it as a word part.

    Raises:
      UserError: there is none.
    """
    globbed = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = [case for case in cases if fnmatch.fnmatchcase(case.name, globbed)]
    if not found:
        raise UserError(
            f"no case matches {pattern!r}; there are: {', '.join(case.name for case in cases)}"
        )
    return found
