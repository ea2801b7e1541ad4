"""Config files: finding, running and checking them, and parsing their argument."""

import difflib
import importlib.util
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aver_jax.config.fields import base_config
from aver_jax.config.values import flat_fields, to_json
from aver_jax.errors import UserError


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
    installed = Path(__file__).parents[1] / "shipped_configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


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
    given = flat_fields(to_json(config))
    missing = [name for name in flat_fields(to_json(base_config())) if name not in given]
    missing = [name for name in missing if not name.startswith(_OPEN)]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise UserError(
            f"config {path} lacks {', '.join(missing[:4])}{more}; begin with base_config()"
        )
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
