"""What follows the branches: scores of features, residual perceptrons, fusion (thesis 5.2).

Kernels of dense layers start as flax's, normal of deviation 1/sqrt(fan in), cut at two deviations;
biases start at 0. torch's own start is uniform within 1/sqrt(fan in), biases included.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from aver_jax.models.norm import feature_norm
from aver_jax.models.timesformer.blocks import checked_keys

NETWORKS = ("late", "n0", "n1", "n2")

Classes = int | Mapping[str, int]
Logits = jax.Array | dict[str, jax.Array]


def hashable(num_classes: Classes) -> Classes:
    """Returns the classes as a field of a module, which is an argument of compiled functions."""
    return FrozenDict(num_classes) if isinstance(num_classes, Mapping) else num_classes


class Heads(nn.Module):
    """A linear classifier for each of several targets."""

    num_classes: Mapping[str, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Maps x [B, D] to {target: logits [B, C]}."""
        return {name: nn.Dense(count, name=name)(x) for name, count in self.num_classes.items()}


def head(num_classes: Classes) -> nn.Module:
    """Returns the last, linear layer of a classifier, named "head"."""
    if isinstance(num_classes, Mapping):
        return Heads(num_classes, name="head")
    return nn.Dense(num_classes, name="head")


class Scoring(nn.Module):
    """Scores of features: Dense -> ReLU -> FeatureNorm -> Dense (eq. 25)."""

    num_classes: Classes
    hidden: int
    axis_name: str | None

    @nn.compact
    def __call__(self, g: jax.Array, train: bool) -> Logits:
        """Maps g [B, D] to logits [B, C], or {target: logits}."""
        hidden = nn.relu(nn.Dense(self.hidden, name="dense")(g))
        hidden = feature_norm(self.axis_name, jnp.float32, "norm")(hidden, train)
        return head(self.num_classes)(hidden)


class SideHead(nn.Module):
    """Scores of one branch in N1 and N2: Dense (eqs 31, 32)."""

    num_classes: Classes

    @nn.compact
    def __call__(self, g: jax.Array) -> Logits:
        """Maps g [B, D] to logits [B, C], or {target: logits}."""
        return head(self.num_classes)(g)


class ResPerceptron(nn.Module):
    """The residual perceptron: f' = f^ + FeatureNorm(sigmoid(Dense(f^))) (eq. 29)."""

    axis_name: str | None

    @nn.compact
    def __call__(self, f: jax.Array, train: bool) -> jax.Array:
        """Maps f^ [B, D] to f' [B, D]."""
        residual = nn.sigmoid(nn.Dense(f.shape[-1], name="dense")(f))
        return f + feature_norm(self.axis_name, jnp.float32, "norm")(residual, train)


class FusionComponent(nn.Module):
    """Scores of several modalities: Concatenate -> FeatureNorm -> Scoring (eqs 26, 27)."""

    num_classes: Classes
    hidden: int
    axis_name: str | None

    @nn.compact
    def __call__(
        self, features: list[jax.Array], train: bool, kept: jax.Array | None
    ) -> tuple[Logits, jax.Array]:
        """Returns the scores and what they are read from, the normalised features [B, sum of D].

        Args:
          features: of each modality, [B, D_m].
          train: static.
          kept: bool [B, M]; features of another modality become 0, their mean.
        """
        norm = feature_norm(self.axis_name, jnp.float32, "norm")
        g = norm(jnp.concatenate(features, axis=-1), train)
        if kept is not None:
            # The column of `kept` that each feature follows.
            owner = np.repeat(np.arange(len(features)), [f.shape[-1] for f in features])
            g = jnp.where(kept[:, owner], g, 0)
        scoring = Scoring(self.num_classes, self.hidden, self.axis_name, name="scoring")
        return scoring(g, train), g


def kept_modalities(keys: jax.Array, rate: float, modalities: int) -> jax.Array:
    """Draws which modalities each example keeps in training.

    Each is dropped with probability `rate`; where none would be left, one of them stays.

    Args:
      keys: typed PRNG keys [B]; a row depends on its own key alone.
      rate: probability of dropping.
      modalities: how many there are, M.

    Returns:
      bool [B, M], at least one True in every row.
    """

    def kept(key: jax.Array) -> jax.Array:
        drawn, spare = jax.random.split(key)
        stays = jax.random.bernoulli(drawn, 1 - rate, (modalities,))
        saved = jnp.arange(modalities) == jax.random.randint(spare, (), 0, modalities)
        return jnp.where(stays.any(), stays, saved)

    return jax.vmap(kept)(keys)


class FusionNetwork(nn.Module):
    """The networks N0, N1 and N2 (MRPN) and late fusion, from features of any modalities.

    Fields:
      num_classes: number of logits, or {target: number of logits}.
      network: "n0": the fusion component alone. "n1": with a linear side head on each modality.
        "n2": also with a residual perceptron before both. "late": with the Scoring of each
        modality's own, earlier training, whose statistics stay as they are.
      modalities: names, in the order in which their features are concatenated.
      hidden: width of the hidden layer of Scoring.
      modality_dropout: in training, the probability that the fusion component (and it alone) does
        not see a modality of an example; it always sees one. It regularises that component, and
        prepares it for no missing modality: with one missing, the others' own logits are taken.
      axis_name: mapped axis whose devices share their batch statistics in training.
    """

    num_classes: Classes
    network: str
    modalities: tuple[str, ...]
    hidden: int = 256
    modality_dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, jax.Array],
        train: bool = False,
        keys: jax.Array | None = None,
    ) -> tuple[Logits, dict[str, Logits]]:
        """Scores a batch.

        Args:
          features: modality -> f^ float32 [B, D_m]. Outside training some may be missing, save in
            N0: the logits are then the mean of the others' own logits.
          train: static.
          keys: typed PRNG keys [B], needed for modality dropout.

        Returns:
          logits float32 [B, C], or {target: logits}, and taps: "features" float32, what the fusion
          component scores, [B, sum of D_m], or, with a modality missing, the others' features;
          for each modality "features_NAME" [B, D_m], f' in N2 and f^ elsewhere, and, save in N0,
          "logits_NAME", shaped as the logits.

        Raises:
          ValueError: no features, unknown ones, some missing where all are needed, or keys that do
            not fit.
        """
        self._check(features, train)
        present = [name for name in self.modalities if name in features]
        taps, g = {}, {}
        for name in present:
            g[name] = features[name]
            if self.network == "n2":
                perceptron = ResPerceptron(self.axis_name, name=f"{name}_residual")
                g[name] = perceptron(g[name], train)
            taps[f"features_{name}"] = g[name]
            if self.network in ("n1", "n2"):
                side = SideHead(self.num_classes, name=f"{name}_side")
                taps[f"logits_{name}"] = side(g[name])
            elif self.network == "late":
                scoring = Scoring(
                    self.num_classes, self.hidden, self.axis_name, name=f"{name}_scoring"
                )
                taps[f"logits_{name}"] = scoring(g[name], train=False)
        if len(present) < len(self.modalities):
            own_logits = [taps[f"logits_{name}"] for name in present]
            logits = jax.tree.map(lambda *of: sum(of) / len(of), *own_logits)
            return logits, taps | {"features": jnp.concatenate(list(g.values()), axis=-1)}
        kept = None
        if train and self.modality_dropout > 0:
            batch = g[present[0]].shape[0]
            keys = checked_keys(keys, batch, "modality dropout")
            kept = kept_modalities(keys, self.modality_dropout, len(present))
        component = FusionComponent(self.num_classes, self.hidden, self.axis_name, name="fusion")
        logits, fused = component(list(g.values()), train, kept)
        return logits, taps | {"features": fused}

    def _check(self, features: Mapping[str, jax.Array], train: bool) -> None:
        if unknown := sorted(features.keys() - set(self.modalities)):
            raise ValueError(f"no modality {unknown} in this model; it has {self.modalities}")
        missing = [name for name in self.modalities if name not in features]
        if not missing:
            return
        if len(missing) == len(self.modalities):
            raise ValueError(f"there are features of no modality, expected {self.modalities}")
        if train or self.network == "n0":
            why = "training needs all modalities" if train else "network n0 cannot do without one"
            raise ValueError(
                f"{' and '.join(missing)} missing, but {why}; "
                "networks n1, n2 and late score single modalities once they are trained"
            )


def check_fusion(
    network: str, modalities: tuple[str, ...], hidden: int, modality_dropout: float
) -> None:
    """Raises ValueError unless a fusion network can have these fields."""
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}, expected one of {NETWORKS}")
    if len(modalities) < 2 or len(set(modalities)) < len(modalities):
        raise ValueError(f"modalities is {modalities}, expected two or more different ones")
    if hidden < 1:
        raise ValueError(f"scoring_hidden is {hidden}, expected at least 1")
    if not 0 <= modality_dropout < 1:
        raise ValueError(
            f"modality_dropout is {modality_dropout}, expected at least 0 and less than 1"
        )
