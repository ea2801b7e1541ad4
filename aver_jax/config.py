"""Experiments as ml_collections configs: their fields, loading a file, overriding fields."""

import difflib
import importlib.util
import traceback
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from aver_jax.errors import UserError


def base_config() -> ConfigDict:
    """Returns every field of an experiment with its default; a config file sets them.

    The model's own fields (`config.model`) are those of its module, and checked when it is built;
    the augmentations are those of `aver_jax.frontend.augment` (`config.frontend.augment`) and of
    `aver_jax.frontend.sound` (`config.frontend.sound`).
    """
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict(
        {
            "path": "",  # the folder that `aver prepare --out` made
            "protocol": "",  # one of aver_jax.input.PROTOCOLS
            "fold": 1,
            "target": "intended",  # intended | voice | face | multimodal (crowd votes)
            "modalities": ("frames",),
            "num_frames": 8,
            "image_size": 224,
            "min_slice": 0.5,  # share of the clip, U(min_slice, 1); 1.0 trains on whole clips
            "max_seconds": 6.0,
            "threads": 8,
            # none: decode as batches are made | host: decode once, into the host's memory |
            # device: into the accelerators' memory, where the step takes its batches from.
            "cache": "none",
            # A clip is reduced to so many evenly spaced frames, of which a slice takes the
            # nearest in time (usually 16); 0: all frames, without a cache.
            "cache_frames": 0,
        }
    )
    config.model = ConfigDict({"name": ""}, allow_dotted_keys=False)
    config.frontend = ConfigDict({"normalization": "per_clip", "augment": ConfigDict()})
    config.frontend.spectrogram = ConfigDict(
        {
            "n_fft": 512,  # samples at 16 kHz, as window and hop
            "window": 512,
            "hop": 64,
            "scale": "log1p",  # log1p | db
            "bands": 0,  # mel bands; 0: all n_fft / 2 + 1 frequencies
            "segment": 250,  # frames: 1.0 s at a hop of 64
            "overlap": 0.5,  # share of a segment
            "mean": 0.0,  # fixed standardisation
            "deviation": 1.0,
        }
    )
    config.frontend.sound = ConfigDict()
    config.batch_size = 64
    config.epochs = 50.0
    config.optimizer = ConfigDict(
        {
            "name": "adamw",  # adamw | sgd
            "lr": 1e-3,
            "weight_decay": 0.05,
            "b1": 0.9,
            "b2": 0.999,
            "momentum": 0.9,  # sgd
            "clip_norm": 1.0,  # 0.0: no clipping
            # Each device works through its batch in this many parts; batch statistics are those of
            # a part (of all devices), batch_size / accumulate clips.
            "accumulate": 1,
        }
    )
    config.schedule = ConfigDict(
        {
            "name": "cosine",  # cosine | constant | plateau
            "warmup_epochs": 5.0,
            "plateau_factor": 0.5,
            "plateau_patience": 10,  # validations
        }
    )
    config.label_smoothing = 0.0
    config.ema_decay = 0.0  # of parameters and batch statistics; 0.0: no moving average
    # Subtree of the parameters -> run folder to start from; "model" is the whole tree.
    config.init = ConfigDict({"model": ""})
    # Path patterns of parameters, e.g. ("blocks", "patch_embed"). Batch statistics move all the
    # same: training normalises by the batch, and they must be what evaluation finds. In late fusion
    # the branches' stay, since the model never normalises them by the batch.
    config.freeze = ()
    config.parallel = "shard_map"  # shard_map | pmap (one process alone)
    config.steps_per_dispatch = 1  # more, in one program, need data.cache device
    config.distributed = False  # several processes (hosts) train together, see mesh.py
    config.evaluation = ConfigDict(
        {
            "every_epochs": 1.0,
            "batch_size": 64,
            "views": 1,
            "select": "validation/war",  # names the best checkpoint; "...loss" is minimised
        }
    )
    config.log_every_steps = 10
    return config


def parse_argument(arg: str | None, **defaults: Any) -> ConfigDict:
    """Parses the part of `--config file.py:size=B,fold=3` after the colon.

    Args:
      arg: comma-separated `name=value` pairs, or None.
      **defaults: the names there are and their defaults; a value takes its default's type.

    Raises:
      UserError: an unknown name, a repeated one, or a value of another type.
    """
    values, seen = dict(defaults), set()
    for pair in filter(None, (arg or "").split(",")):
        name, equals, text = pair.partition("=")
        if name not in defaults or not equals or name in seen:
            known = ", ".join(f"{key}={value}" for key, value in defaults.items())
            raise UserError(f"config argument {pair!r} is not understood; there are: {known}")
        seen.add(name)
        default = defaults[name]
        if isinstance(default, bool):
            if text not in ("true", "false"):
                raise UserError(f"config argument {pair!r}: expected {name}=true or {name}=false")
            values[name] = text == "true"
        else:
            try:
                values[name] = type(default)(text)
            except ValueError:
                kind = type(default).__name__
                raise UserError(
                    f"config argument {pair!r}: expected a value of type {kind}"
                ) from None
    return ConfigDict(values)


def choice(name: str, value: str, choices: Any) -> str:
    """Returns `value` if it is among the choices, else raises UserError naming them."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}; expected one of {', '.join(map(str, choices))}")
    return value


def _shipped_folder() -> Path:
    """Returns where the experiments lie: inside the wheel, or beside the package in a checkout."""
    installed = Path(__file__).parent / "shipped_configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def load_config(spec: str) -> ConfigDict:
    """Returns the experiment that `PATH[.py][:argument]` describes.

    Args:
      spec: a path, or the name of a shipped experiment such as "timesformer.py:size=demo".

    Raises:
      UserError: no such file, no `get_config`, or a field that does not exist.
    """
    name, _, argument = spec.partition(":")
    candidates = [Path(name), _shipped_folder() / Path(name).with_suffix(".py").name]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        shipped = ", ".join(sorted(p.name for p in _shipped_folder().glob("*.py")))
        raise UserError(f"config {name!r} not found; give a path or a shipped one: {shipped}")
    if path.suffix != ".py":
        raise UserError(f"config {path} is not a Python file; expected a .py with get_config(arg)")
    module_spec = importlib.util.spec_from_file_location(f"aver_config_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config(argument or None)
    except UserError:
        raise
    except Exception as error:  # a user's own program can fail in any way
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        where = f" line {lines[-1]}" if lines else ""
        what = " ".join(str(error).split())
        raise UserError(f"config {path}{where}: {type(error).__name__}: {what}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"config {path}: get_config returned no ConfigDict; begin with base_config()"
        )
    check_fields(config)
    missing = sorted(set(base_config()) - set(config))
    if missing:
        raise UserError(f"config {path} lacks {', '.join(missing)}; begin with base_config()")
    return config.lock()


# Their fields belong to the part that reads them, which checks them.
_OPEN = ("model", "frontend.augment", "frontend.sound", "init")


def check_fields(config: ConfigDict) -> None:
    """Raises UserError naming the first field that no part of aver_jax reads."""

    def walk(given: ConfigDict, known: ConfigDict, prefix: str) -> None:
        for key in given:
            path = f"{prefix}{key}"
            if key not in known:
                close = difflib.get_close_matches(key, list(known), n=1)
                hint = (
                    f"did you mean {prefix}{close[0]}?"
                    if close
                    else f"there are: {', '.join(known)}"
                )
                raise UserError(f"unknown config field {path!r}; {hint}")
            if isinstance(known[key], ConfigDict) and path not in _OPEN:
                walk(given[key], known[key], f"{path}.")

    walk(config, base_config(), "")


def override(config: ConfigDict, arguments: list[str]) -> ConfigDict:
    """Returns the config with `--config.optimizer.lr=1e-4` and the like applied.

    Args:
      config: a locked config; changed in place.
      arguments: command-line words that begin with "--config.".

    Raises:
      UserError: an unknown field, or a value of another type.
    """
    arguments = _without_init(config, arguments)
    for word in arguments:
        _check_word(config, word)
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["aver", *arguments]
        )
        leftovers = values(["aver", *arguments])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        message = " ".join(str(error).replace("'''", "").split())
        raise UserError(f"config: {message}") from error
    if leftovers:
        raise UserError(f"unknown argument {leftovers[0]!r}; see aver train --help")
    return config


def _check_word(config: ConfigDict, word: str) -> None:
    """Raises UserError for a word of the command line that names no field."""
    if not word.startswith("--config."):
        return
    node, path = config, word.partition("=")[0].removeprefix("--config.")
    for depth, key in enumerate(path.split(".")):
        if not isinstance(node, ConfigDict) or key not in node:
            parent = ".".join(["config", *path.split(".")[:depth]])
            known = list(node) if isinstance(node, ConfigDict) else []
            close = difflib.get_close_matches(key, known, n=1)
            if close:
                hint = f"did you mean {parent}.{close[0]}?"
            else:
                hint = f"there are: {', '.join(known)}" if known else f"{parent} has no fields"
            raise UserError(f"unknown config field {parent}.{key}; {hint}")
        node = node[key]


def _without_init(config: ConfigDict, arguments: list[str]) -> list[str]:
    """Takes `--config.init.SUBTREE=RUN` out: subtrees are the model's, no config lists them all."""
    left, prefix = [], "--config.init."
    for word in arguments:
        name, equals, folder = word.removeprefix(prefix).partition("=")
        if word.startswith(prefix) and name and equals:
            with config.init.unlocked():
                config.init[name] = folder
        else:
            left.append(word)
    return left


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the config as JSON types: references resolved, tuples as lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, ConfigDict | dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return value

    return plain(config)


def flat_fields(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested dict of JSON types as one of dotted names; an empty dict stays a value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flat_fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns (name, value before, value now), by name, of what differs between flat fields."""
    return [
        (name, before.get(name), now.get(name))
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
