"""Fields of a config set on the command line: --config.optimizer.lr=1e-4."""

import difflib

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from aver_jax.errors import UserError


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
