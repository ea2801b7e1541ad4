"""The multimodal residual perceptron network and its kin (Chang 2021, chapter 5)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.modality import Modality
from aver_jax.models.fusion.fusion import Classes, FusionNetwork, Logits, check_fusion, hashable
from aver_jax.models.model import Model
from aver_jax.models.resnet.branch import (
    BranchFields,
    branch_input,
    branch_input_shapes,
    branch_of,
    check_branch,
)


class Mrpn(BranchFields, Model):
    """Branches of a ResNet and an aggregator for every modality, and a `FusionNetwork` over them.

    The defaults are the thesis': ResNet-18 and an LSTM of 512 for video and for sound, and N2,
    which is MRPN. Frames and segments may have any size and number. The tree is {"video", "audio",
    "fusion", "video_side", "video_residual", "video_scoring", ...}, as the network has them.

    Fields:
      num_classes: number of logits, C, or {target: number of logits}.
      network: "late", "n0", "n1" or "n2"; see `FusionNetwork`. In late fusion the branches and
        their scores are taken as they come: no gradient, no new batch statistics.
      modalities: of "video" and "audio", in the order of their fused features.
      cnn, stage_sizes, width, stem, aggregator, features, axis_name, dtype: of every branch, see
        `BranchFields`; the cnn of audio is always "2d". Statistics and logits are float32.
      scoring_hidden: width of the hidden layer of Scoring.
      modality_dropout: regularises the fusion component in training, see `FusionNetwork`; where a
        modality is missing afterwards, the branch that is there predicts, and not the fusion.

    A limit: a clip without a valid segment in a batch that has sound ("audio_segments" 0) counts
    like any other from there on. Its f^ of sound is 0, the mean; the norms after the branches take
    that into their statistics, the fusion scores it, and the losses, also that of the sound's own
    logits, are those of all clips.

    Raises ValueError on fields that do not fit together.
    """

    num_classes: Classes
    network: str = "n2"
    modalities: tuple[str, ...] = ("video", "audio")
    scoring_hidden: int = 256
    modality_dropout: float = 0.0

    def __post_init__(self) -> None:
        self.num_classes = hashable(self.num_classes)
        super().__post_init__()
        check_fusion(self.network, self.modalities, self.scoring_hidden, self.modality_dropout)
        if unknown := sorted(set(self.modalities) - set(Modality)):
            raise ValueError(f"no modality {unknown}; there are {list(map(str, Modality))}")
        check_branch(self)

    @property
    def takes_one_modality(self) -> bool:
        """All but N0, which has no classifier of a branch alone."""
        return self.network != "n0"

    @property
    def frozen_subtrees(self) -> tuple[str, ...]:
        """In late fusion the branches and their scores."""
        if self.network != "late":
            return ()
        return tuple(f"{name}{part}" for name in self.modalities for part in ("", "_scoring"))

    def with_axis(self, axis_name: str) -> "Mrpn":
        """Returns the network with its batch statistics shared over a mapped axis."""
        return self.clone(axis_name=axis_name)

    @property
    def auxiliary_logits(self) -> tuple[str, ...]:
        """Taps whose cross-entropies are added to the loss (eq. 28): the branches' in N1 and N2."""
        if self.network in ("n1", "n2"):
            return tuple(f"logits_{name}" for name in self.modalities)
        return ()

    def input_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns small shapes and the dtype of every input; the model takes any other size too."""
        shapes = {}
        for name in self.modalities:
            shapes |= branch_input_shapes(name, batch_size)
        return shapes

    @nn.compact
    def __call__(
        self,
        inputs: Mapping[str, jax.Array],
        train: bool = False,
        keys: jax.Array | None = None,
        capture: tuple[str, ...] = (),
        probes: Mapping[str, jax.Array] | None = None,
    ) -> tuple[Logits, dict[str, Logits]]:
        """Classifies a batch of clips.

        Args:
          inputs: {"frames": float [B, T, H, W, 3], "audio": float [B, N, F, W],
            "audio_segments": int32 [B], the valid ones of the N segments}; normalised. Outside
            training, and save in N0, a modality may be missing: the logits are then those of the
            other's branch.
          train: whether batch statistics are those of this batch and modalities drop; static.
          keys: typed PRNG keys [B], one per clip, needed for modality dropout in training.
          capture: of "maps_video" and "maps_audio", the maps of the CNNs' last stages; static.
          probes: {tap: array of the tap's shape}, added to the maps.

        Returns:
          logits float32 [B, C], or {target: logits}, and taps: those of `FusionNetwork` and what
          was captured, "maps_video" [B, T, h, w, D] and "maps_audio" [B, N, h, w, D].

        Raises:
          ValueError: inputs, keys or tap names that do not fit the model.
        """
        probes = probes or {}
        present = [name for name in self.modalities if Modality(name).array in inputs]
        known = {f"maps_{name}" for name in present}
        if unknown := sorted({*capture, *probes} - known):
            raise ValueError(f"no tap {unknown} with these inputs; there are {sorted(known)}")
        frozen = self.network == "late"
        features, maps = {}, {}
        for name in present:
            x, lengths = branch_input(inputs, name)
            features[name], maps[f"maps_{name}"] = branch_of(self, name)(
                x, lengths, train and not frozen, probes.get(f"maps_{name}")
            )
            if frozen and train:
                # Only in training: maps of relevance differentiate through the branches.
                features[name] = jax.lax.stop_gradient(features[name])
        network = FusionNetwork(
            num_classes=self.num_classes,
            network=self.network,
            modalities=self.modalities,
            hidden=self.scoring_hidden,
            modality_dropout=self.modality_dropout,
            axis_name=self.axis_name,
        )
        # Its parts stand beside the branches in the tree.
        nn.share_scope(self, network)
        logits, taps = network(features, train, keys)
        return logits, taps | {name: maps[name].astype(jnp.float32) for name in capture}
