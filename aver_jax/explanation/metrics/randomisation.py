"""Sanity checks: does relevance depend on what the model learned, and on the class asked for?

Cascading randomisation (Adebayo et al., NeurIPS 2018): the parameters of one part after the other,
the head first, are drawn anew, and stay so. A map that looks the same after it does not show what
the model has learned. How alike two maps are is told by Spearman's rank correlation over all places
of a clip.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from scipy.stats import rankdata


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation of the maps of each clip, float64 [n].

    NaN where a map is constant: it ranks nothing.

    Args:
      maps, others: float [n, ...] of one shape.
    """
    one, other = (rankdata(m.reshape(len(m), -1), axis=1) for m in (maps, others))
    one, other = (r - r.mean(axis=1, keepdims=True) for r in (one, other))
    scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, (one * other).sum(axis=1) / scale, np.nan)


def parts_from_the_head(params: Mapping[str, Any]) -> list[tuple[str, list[tuple]]]:
    """Returns the parts of a model's parameters, those next to the logits first.

    Of a TimeSformer: head, norm, its layers from the last to the first, all that embeds. Of an MRPN
    and its branches: what scores, side heads, residual perceptrons, aggregators, CNNs.

    Args:
      params: the collection "params".

    Returns:
      (name, paths): a path is the keys of a subtree, and then the layer where layers are stacked.
    """
    if "blocks" in params:
        depth = len(jax.tree.leaves(params["blocks"])[0])
        parts = [(name, [(name,)]) for name in ("head", "norm")]
        parts += [(f"layer {n + 1}", [("blocks", n)]) for n in reversed(range(depth))]
        rest = sorted(set(params) - {"head", "norm", "blocks"})
        return [*parts, ("embeddings", [(name,) for name in rest])]
    groups: dict[str, list[tuple]] = {name: [] for name in _OF_BRANCHES}
    for name, tree in params.items():
        suffix = name.rpartition("_")[2]
        if name == "fusion" or suffix == "scoring":
            groups["scoring"].append((name,))
        elif suffix in ("side", "residual"):
            groups[suffix].append((name,))
        else:
            for own in tree:
                groups["aggregator" if own == "aggregator" else "cnn"].append((name, own))
    return [(name, paths) for name, paths in groups.items() if paths]


def cascade(
    variables: Mapping[str, Any], fresh: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the variables with one more part drawn anew each time, from the head down.

    Args:
      variables: of the trained model.
      fresh: of the same model, as a training with another seed begins.

    Yields:
      The part's name and the variables. Running statistics of batch norms go with the last part.
    """
    params = variables["params"]
    parts = parts_from_the_head(params)
    for number, (name, paths) in enumerate(parts):
        for path in paths:
            params = _replaced(params, fresh["params"], path)
        others = fresh if number == len(parts) - 1 else variables
        yield name, {**others, "params": params}


_OF_BRANCHES = ("scoring", "side", "residual", "aggregator", "cnn")


def _replaced(tree: Any, fresh: Any, path: tuple) -> Any:
    if not path:
        return fresh
    key, *rest = path
    if isinstance(key, int):
        return jax.tree.map(lambda own, new: own.at[key].set(new[key]), tree, fresh)
    return {**tree, key: _replaced(tree[key], fresh[key], tuple(rest))}
