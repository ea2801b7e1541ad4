"""Fine-tuning: parameters of earlier runs as the start of a new one."""

import dataclasses
import functools
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aver_jax.errors import UserError
from aver_jax.models.param_paths import parameter_path
from aver_jax.models.timesformer.resize import resized_pos_embed, resized_time_embed
from aver_jax.runs.run_folder import LoadedRun, load_run

WHOLE_MODEL = "model"
# The classifier is the one part that another set of classes may replace.
HEAD = "head"


def leaves(tree: Any) -> dict[str, Any]:
    """Returns a tree's leaves by path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {parameter_path(path): leaf for path, leaf in flat}


def resized(fresh: Mapping[str, Any], trained: Mapping[str, Any]) -> tuple[dict, dict[str, str]]:
    """Returns trained parameters with the embeddings of positions and times at the model's size.

    Args:
      fresh: initial parameters.
      trained: parameters of another run.

    Returns:
      The parameters, and for each that was resized a line for a report; equal sizes stay as they
      are.
    """
    changed, told = dict(trained), {}
    for name, resize in (("pos_embed", resized_pos_embed), ("time_embed", resized_time_embed)):
        if name not in fresh or name not in trained:
            continue
        old, new = np.shape(trained[name]), np.shape(fresh[name])
        if old == new or len(old) != 3 or old[2] != new[2]:
            continue
        size, way = new[1], "linear"
        if name == "pos_embed":
            size, way = round((new[1] - 1) ** 0.5), "bicubic"
        changed[name] = resize(np.asarray(trained[name]), size)
        told[name] = f"{name} resized from {old[1]} to {new[1]} ({way})"
    return changed, told


def merge(fresh: Any, trained: Any, same_classes: bool, inside: str = "") -> tuple[Any, list[str]]:
    """Returns the fresh parameters with the trained ones put in, and the paths left fresh.

    Args:
      fresh: initial parameters.
      trained: parameters of another run, of the same structure.
      inside: path of this subtree in the model, "" for the whole.
      same_classes: False leaves the head fresh: its rows would mean other emotions.

    Raises:
      UserError: a parameter outside the head is missing, unknown, or of another shape.
    """

    def is_head(path: str) -> bool:
        return HEAD in f"{inside}/{path}".split("/")

    old, new = leaves(trained), leaves(fresh)
    reasons = [f"{path} is missing" for path in new.keys() - old.keys() if not is_head(path)]
    reasons += [f"{path} is not in this model" for path in old.keys() - new.keys()]
    reasons += [
        f"{path} is {old[path].shape}, this model has {new[path].shape}"
        for path in new.keys() & old.keys()
        if old[path].shape != new[path].shape and not is_head(path)
    ]
    if reasons:
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise UserError("; ".join(sorted(reasons)[:3]) + more)
    left_fresh = []

    def pick(key_path, leaf):
        path = parameter_path(key_path)
        taken = path in old and old[path].shape == leaf.shape
        if is_head(path) and not (taken and same_classes):
            left_fresh.append(path)
            return leaf
        return old[path].astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(pick, fresh), left_fresh


def initialize_from(
    variables: dict[str, Any],
    init: Any,
    classes: tuple[str, ...],
    frozen: frozenset[str] = frozenset(),
) -> tuple[dict[str, Any], list[str]]:
    """Returns the variables with the subtrees that `config.init` names taken from earlier runs.

    A subtree brings its parameters and its batch statistics.

    Args:
      variables: fresh collections.
      init: mapping subtree -> run folder; "model" is the whole tree, "a/b" a part of it, taken
        from the same place in the run, whatever model it is of, or, where the run has no such
        place, from its whole tree. Larger subtrees come first, so that a part may be taken from
        another run than the rest. An empty folder name is passed over.
      classes: class names of the new run.
      frozen: leaves that no training will change, such as "params/blocks/...": all must be given.

    Returns:
      The variables, and a report: one line per subtree.

    Raises:
      UserError: no such subtree, no such run, or a run of another model; a frozen leaf that no run
        gives.
    """
    report: list[str] = []
    given: set[str] = set()
    anew: dict[str, str] = {}
    load = functools.cache(load_run)  # several subtrees may come from one run
    for subtree in sorted(init, key=_depth):
        folder = init[subtree]
        if not folder:
            continue
        run = load(Path(folder))
        params, told = resized(variables["params"], run.variables["params"])
        run = dataclasses.replace(run, variables={**run.variables, "params": params})
        try:
            variables, left = _with_subtree(variables, run, subtree, run.classes == classes)
        except UserError as error:
            raise UserError(f"config.init.{subtree}={folder}: {error}") from error
        new_heads = {f"params/{path}" for path in left}
        given |= {path for path in leaves(variables) if _inside(path, subtree)} - new_heads
        anew |= dict.fromkeys(new_heads, f"config.init.{subtree}={folder}")
        fresh = f"; initialised anew: {', '.join(left)}" if left else ""
        lines = [line for name, line in told.items() if subtree in (WHOLE_MODEL, name)]
        report.append(f"{subtree} from {folder} (step {run.step}){'; '.join(['', *lines])}{fresh}")
    if lost := frozen - given:
        collections = {leaf.partition("/")[0] for leaf in lost}
        rest = {leaf for leaf in leaves(variables) if leaf.partition("/")[0] in collections} - lost
        raise UserError(_what_is_lost(lost, rest, anew))
    return variables, report


def _inside(path: str, subtree: str) -> bool:
    """Tells whether a leaf, "COLLECTION/a/b/...", belongs to a subtree."""
    return subtree == WHOLE_MODEL or f"{path.partition('/')[2]}/".startswith(f"{subtree}/")


def _what_is_lost(lost: Set[str], rest: Set[str], anew: Mapping[str, str]) -> str:
    """Returns, in words, which frozen leaves no run gives.

    Args:
      lost: these leaves.
      rest: the others.
      anew: heads, and the runs that have none for these classes.
    """
    partly = {subtree for leaf in rest for subtree in _subtrees(leaf)}

    def names(paths: Set[str]) -> list[str]:
        # The largest subtrees that are lost as a whole.
        return sorted(
            {
                next((subtree for subtree in _subtrees(path) if subtree not in partly), path)
                for path in paths
            }
        )

    if heads := lost & anew.keys():
        return (
            f"{', '.join(names(heads))} would be frozen at random values: "
            f"{', '.join(sorted({anew[path] for path in heads}))} has none for these classes; take "
            "a run of the same classes in the same order"
        )
    runs = " ".join(f"--config.init.{name}=RUN" for name in names(lost))
    return (
        f"{', '.join(names(lost))} would be frozen at random values; give the run to take it from, "
        f"{runs}, or leave it out of config.freeze"
    )


def _subtrees(leaf: str) -> list[str]:
    """Returns the subtrees around "COLLECTION/a/b/c", and itself: "a", "a/b", "a/b/c"."""
    parts = leaf.split("/")[1:]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _depth(subtree: str) -> int:
    return 0 if subtree == WHOLE_MODEL else 1 + subtree.count("/")


def _with_subtree(
    variables: dict[str, Any], run: LoadedRun, subtree: str, same_classes: bool
) -> tuple[dict[str, Any], list[str]]:
    """Returns the variables with one subtree of all collections taken from a run."""
    keys = [] if subtree == WHOLE_MODEL else subtree.split("/")
    # A part may be in one collection alone: a norm without parameters has statistics only.
    there = [name for name, tree in variables.items() if _at(tree, keys) is not None]
    if not there:
        _put(variables["params"], keys, {}, same_classes)  # says what there is
    in_place = any(_at(run.variables.get(name, {}), keys) is not None for name in there)
    merged, fresh = dict(variables), []
    for name in sorted(there, key=lambda name: name != "params"):
        source = run.variables.get(name, {})
        trained = (_at(source, keys) or {}) if in_place else source
        try:
            merged[name], left = _put(variables[name], keys, trained, same_classes)
        except UserError as error:
            if in_place:
                raise
            top = ", ".join(sorted(run.variables["params"]))
            raise UserError(
                f"the run has no {subtree!r} (it has: {top}), and as a whole does not fit: {error}"
            ) from error
        fresh += left
    return merged, fresh


def _at(tree: Any, keys: list[str]) -> Any:
    """Returns the subtree at a path, None if there is none."""
    for key in keys:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _put(
    tree: Any, keys: list[str], trained: Any, same_classes: bool, inside: str = ""
) -> tuple[Any, list[str]]:
    if not keys:
        return merge(tree, trained, same_classes, inside)
    if keys[0] not in tree:
        raise UserError(f"no subtree {keys[0]!r}; there are: {', '.join(sorted(tree))}")
    path = f"{inside}/{keys[0]}"
    inner, left = _put(tree[keys[0]], keys[1:], trained, same_classes, path)
    return {**tree, keys[0]: inner}, [f"{keys[0]}/{name}" for name in left]
