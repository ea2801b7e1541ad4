"""Write a run folder from a PyTorch checkpoint.

`timesformer --from PATH --out FOLDER` reads TimeSformer weights of the official code or of Hugging
Face, and image-ViT weights with timm's names. `aver_jax.load_run`, `aver predict` and
`--config.init.model=FOLDER` take FOLDER. A checkpoint of a space-only official model cannot be told
from an image ViT: say `--attention space_only`.

`resnet --from PATH --out FOLDER --modality video|audio` reads ResNet-18 or -34 weights with
torchvision's names or Hugging Face's, also of a 3D-ResNet, as the CNN of a ResNet-LSTM. All else in
it is newly drawn: FOLDER is where trainings start, `--config.init.video/cnn=FOLDER`.

PATH is a .safetensors file, a torch file (.pyth, .pth, .pt, .bin; read with weights_only, needs
torch), or a Hugging Face folder.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aver_jax.config import base_config
from aver_jax.errors import UserError
from aver_jax.frontend.normalize import CHANNEL_STATISTICS, NORMALIZATIONS
from aver_jax.modality import Modality
from aver_jax.models import init_variables
from aver_jax.models.timesformer.timesformer import ATTENTION_TYPES
from aver_jax.models.weights.resnet import convert_resnet
from aver_jax.models.weights.timesformer import convert
from aver_jax.models.weights.torch_tensors import CheckpointError
from aver_jax.runs.run_folder import model_of, write_run
from data_prep.clip import Preparation

# Of checkpoints that come without a preprocessor's config.
NORMALIZATION = {"official": "timesformer", "hugging_face": "half", "image_vit": "half"}
TORCH_SUFFIXES = (".pyth", ".pth", ".pt", ".bin")
# What our module computes; a config that says otherwise belongs to another network.
HUGGING_FACE_CONSTANTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "num_channels": 3,
}


@dataclasses.dataclass(frozen=True)
class Source:
    """What lies at the path: tensors by name, and a Hugging Face folder's two configs if any."""

    tensors: dict[str, Any]
    config: dict[str, Any]
    preprocessor: dict[str, Any]


def read_source(path: Path) -> Source:
    """Returns the content of a checkpoint file or of a Hugging Face folder."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
        if not files:
            raise UserError(f"{path} has no *.safetensors and no pytorch_model.bin")
        tensors: dict[str, Any] = {}
        for file in files:
            tensors |= read_tensors(file)
        return Source(
            tensors, _json(path / "config.json"), _json(path / "preprocessor_config.json")
        )
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a checkpoint file or a folder")
    return Source(read_tensors(path), {}, {})


def read_tensors(path: Path) -> dict[str, Any]:
    """Returns the names and numpy arrays of one file, nested as they are in it."""
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.numpy import load_file
        except ImportError:
            raise UserError(f"{path}: install safetensors to read it") from None
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}") from error
    if path.suffix not in TORCH_SUFFIXES:
        raise UserError(
            f"{path}: expected .safetensors or a torch file ({', '.join(TORCH_SUFFIXES)})"
        )
    try:
        import torch
    except ImportError:
        raise UserError(f"{path} is a torch file: install torch to read it") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises many types here; weights_only refuses whatever could run code.
        first_line = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be read as plain weights: {first_line}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, expected names and tensors")

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        # numpy knows no bfloat16.
        return value.float().numpy() if isinstance(value, torch.Tensor) else value

    return plain(content)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def hugging_face_options(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of `convert` that a TimeSformer's config.json tells."""
    if config.get("model_type") != "timesformer":
        return {}
    for name, ours in HUGGING_FACE_CONSTANTS.items():
        if config.get(name, ours) != ours:
            raise UserError(f"config.json: {name} is {config[name]!r}, supported is {ours!r}")
    # Of a file without a field, the defaults of transformers' TimesformerConfig hold.
    return {
        "attention": config.get("attention_type", "divided_space_time"),
        "num_heads": config.get("num_attention_heads", 12),
        "num_frames": config.get("num_frames", 8),
    }


def normalization_of(source: Source, family: str) -> str:
    """Returns the name of the normalisation that a checkpoint expects."""
    mean, deviation = (source.preprocessor.get(name) for name in ("image_mean", "image_std"))
    if mean is None or deviation is None:
        return NORMALIZATION[family]
    for name, statistics in CHANNEL_STATISTICS.items():
        if np.allclose((mean, deviation), statistics, atol=1e-4):
            return name
    raise UserError(
        f"preprocessor_config.json normalises by {mean} and {deviation}, which has no name here; "
        f"choose --normalization from {', '.join(NORMALIZATIONS)}"
    )


def class_names(source: Source, given: str | None, new_head: bool) -> list[str] | None:
    """Returns the classes that are named on the command line or in config.json, if any."""
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    if new_head:
        raise UserError("--new-head needs --classes")
    labels = source.config.get("id2label")
    return [labels[key] for key in sorted(labels, key=int)] if labels else None


def write_timesformer(args: argparse.Namespace) -> None:
    """Converts the checkpoint at args.source into the run folder args.out."""
    if args.out.exists():
        raise UserError(f"{args.out} exists already; choose another folder or remove it")
    source = read_source(args.source)
    classes = class_names(source, args.classes, args.new_head)
    options = hugging_face_options(source.config)
    trained_frames = options.pop("num_frames", None)
    chosen = {
        "attention": args.attention,
        "num_heads": args.num_heads,
        "image_size": args.image_size,
        "num_frames": args.num_frames,
        "new_head": len(classes) if args.new_head else None,
    }
    # Space-only models have no time embeddings that could tell their number of frames.
    if chosen["num_frames"] is None and options.get("attention") == "space_only":
        chosen["num_frames"] = trained_frames
    options |= {name: value for name, value in chosen.items() if value is not None}
    try:
        converted = convert(source.tensors, **options)
    except CheckpointError as error:
        hint = "; see --new-head" if "without a head" in str(error) else ""
        raise UserError(f"{args.source}: {error}{hint}") from error

    fields = dict(converted.fields)
    num_classes = fields.pop("num_classes")
    classes = classes or [f"class_{index}" for index in range(num_classes)]
    if len(classes) != num_classes:
        raise UserError(
            f"{args.source}: the head has {num_classes} classes and {len(classes)} are named; "
            "name them all, or give --new-head"
        )
    config = base_config()
    config.data.image_size = fields["image_size"]
    config.data.num_frames = fields["num_frames"]
    config.model.update({**fields, "name": "timesformer"})
    config.frontend.normalization = args.normalization or normalization_of(source, converted.family)
    metadata = {
        "classes": classes,
        "dataset": {},
        "protocol": "none (converted weights)",
        "modalities": [Modality.VIDEO.array],
        "preparation": Preparation(size=fields["image_size"]).to_json(),
    }
    write_run(args.out, config, metadata, {"params": converted.params})
    print(
        f"{args.out}: {converted.family} weights, {fields['attention']}, {num_classes} classes, "
        f"{fields['num_frames']} frames of {fields['image_size']} px, normalisation "
        f"{config.frontend.normalization}"
    )
    for note in converted.notes:
        print(f"note: {note}")


def write_resnet(args: argparse.Namespace) -> None:
    """Converts the checkpoint at args.source into a ResNet-LSTM whose CNN it is, at args.out."""
    if args.out.exists():
        raise UserError(f"{args.out} exists already; choose another folder or remove it")
    source = read_source(args.source)
    try:
        converted = convert_resnet(source.tensors, channels=3 if args.modality == "video" else 1)
    except CheckpointError as error:
        raise UserError(f"{args.source}: {error}") from error
    fields = dict(converted.fields)
    if fields["dims"] == 3 and args.modality == "audio":
        raise UserError(f"{args.source}: a 3D-ResNet is for --modality video; sound takes 2-D ones")
    config = base_config()
    config.data.modalities = (args.modality,)
    config.frontend.normalization = "imagenet"
    config.model.update(
        {
            "name": "resnet_lstm",
            "modality": args.modality,
            "cnn": f"{fields.pop('dims')}d",
            "features": fields["width"] * 2 ** (len(fields["stage_sizes"]) - 1),
            **fields,
        }
    )
    # One class means no classifier: with more, an untrained head would look like a trained one.
    variables = init_variables(model_of(config, 1), jax.random.key(0))
    for name, tree in converted.variables.items():
        variables[name][args.modality]["cnn"] = tree
    metadata = {
        "classes": ["untrained"],
        "dataset": {},
        "protocol": "none (converted weights)",
        "modalities": [Modality(args.modality).array],
        "preparation": Preparation().to_json(),
    }
    write_run(args.out, config, metadata, variables)
    blocks, width = "-".join(map(str, fields["stage_sizes"])), fields["width"]
    print(
        f"{args.out}: {config.model.cnn} ResNet of {blocks} blocks, width {width}; "
        f"start with --config.init.{args.modality}/cnn={args.out}"
    )
    for note in converted.notes:
        print(f"note: {note}")
    print("note: the CNN alone is converted; what follows it is newly drawn")
    if args.modality == "video":
        print("note: weights from ImageNet need --config.frontend.normalization=imagenet")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="convert_checkpoint.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True)

    def add(name: str, write: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, allow_abbrev=False)
        command.set_defaults(write=write)
        command.add_argument("--from", dest="source", type=Path, required=True, metavar="PATH")
        command.add_argument("--out", type=Path, required=True, metavar="FOLDER")
        return command

    command = add("resnet", write_resnet)
    command.add_argument(
        "--modality", choices=list(map(str, Modality)), required=True, help="whose CNN it becomes"
    )
    command = add("timesformer", write_timesformer)
    command.add_argument("--attention", choices=ATTENTION_TYPES, help="for image-ViT weights")
    command.add_argument("--num-heads", type=int, help="default: one per 64 features")
    command.add_argument("--image-size", type=int, help="pixels; resizes pos_embed (bicubic)")
    command.add_argument("--num-frames", type=int, help="resizes time_embed (linear)")
    command.add_argument("--classes", help="names in the order of the logits: ANG,DIS,...")
    command.add_argument(
        "--new-head", action="store_true", help="draw a head for --classes, drop the checkpoint's"
    )
    command.add_argument("--normalization", choices=NORMALIZATIONS, help="default: by the source")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 for an error the user can put right."""
    args = _parser().parse_args(argv)
    try:
        args.write(args)
    except UserError as error:
        print(f"convert_checkpoint.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
