"""Paths of parameters as users write them, and which of them patterns match."""

import fnmatch
import re
from typing import Any

import jax


def parameter_path(key_path: tuple[Any, ...]) -> str:
    """Returns a parameter's path as users write it: "blocks/attn/qkv/kernel".

    Unstacked layers (`models.timesformer.unstacked.Layers`) share the path of their stack.
    """
    names = (key for key in key_path if not isinstance(key, jax.tree_util.SequenceKey))
    return "/".join(str(getattr(key, "key", key)) for key in names)


def frozen_mask(tree: Any, patterns: tuple[str, ...]) -> Any:
    """Returns a tree of bools: True where a pattern matches the leaf's path or a parent of it.

    Args:
      tree: a nested dict of arrays (parameters, or another collection such as batch statistics).
      patterns: shell-style patterns over paths, e.g. "blocks" or "*/attn/*".
    """
    regexes = [re.compile(fnmatch.translate(pattern)) for pattern in patterns]

    def matches(key_path, _):
        parts = parameter_path(key_path).split("/")
        prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        return any(regex.match(prefix) for regex in regexes for prefix in prefixes)

    return jax.tree_util.tree_map_with_path(matches, tree)
