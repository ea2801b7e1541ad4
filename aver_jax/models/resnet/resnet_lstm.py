"""ResNet-LSTM: emotion from one modality alone (Chang 2021, 4.4 and 4.5)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.modality import Modality
from aver_jax.models.fusion.fusion import Classes, Logits, Scoring, hashable
from aver_jax.models.model import Model
from aver_jax.models.resnet.branch import (
    BranchFields,
    branch_input,
    branch_input_shapes,
    branch_of,
    check_branch,
)


class ResNetLstm(BranchFields, Model):
    """s_m = Scoring(FeatureNorm(f_m)) (eq. 26), f_m the aggregated features of a ResNet.

    The defaults are the thesis': ResNet-18 and an LSTM of 512. Frames and segments may have any
    size and number. The tree is that of the modality in `Mrpn`: {"video", "video_scoring"}.

    Fields:
      num_classes: number of logits, C, or {target: number of logits}.
      modality: "video" or "audio".
      cnn, stage_sizes, width, stem, aggregator, features: of the `Branch`.
      scoring_hidden: width of the hidden layer of Scoring.

    Raises ValueError on fields that do not fit together.
    """

    num_classes: Classes
    modality: str = "video"
    scoring_hidden: int = 256

    def __post_init__(self) -> None:
        self.num_classes = hashable(self.num_classes)
        super().__post_init__()
        if self.modality not in set(Modality):
            known = list(map(str, Modality))
            raise ValueError(f"modality is {self.modality!r}, expected one of {known}")
        if self.modality == "audio" and self.cnn == "3d":
            raise ValueError("cnn is '3d', but segments of sound are images: set cnn='2d'")
        check_branch(self)
        if self.scoring_hidden < 1:
            raise ValueError(f"scoring_hidden is {self.scoring_hidden}, expected at least 1")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Its one modality."""
        return (Modality(self.modality),)

    def with_axis(self, axis_name: str) -> "ResNetLstm":
        """Returns the network with its batch statistics shared over a mapped axis."""
        return self.clone(axis_name=axis_name)

    def input_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns small shapes and the dtype of every input; the model takes any other size too."""
        return branch_input_shapes(self.modality, batch_size)

    @nn.compact
    def __call__(
        self,
        inputs: Mapping[str, jax.Array],
        train: bool = False,
        keys: jax.Array | None = None,
        capture: tuple[str, ...] = (),
        probes: Mapping[str, jax.Array] | None = None,
    ) -> tuple[Logits, dict[str, jax.Array]]:
        """Classifies a batch of clips.

        Args:
          inputs: {"frames": float [B, T, H, W, 3]}, or {"audio": float [B, N, F, W],
            "audio_segments": int32 [B], the valid ones of the N segments}; normalised.
          train: whether batch statistics are those of this batch; static.
          keys: not used, there is no randomness.
          capture: () or ("maps_MODALITY",): the maps of the CNN's last stage.
          probes: {} or {"maps_MODALITY": array of the maps' shape}, added to the maps.

        Returns:
          logits float32 [B, C], or {target: logits}, and taps: "features", float32 [B, D], what
          Scoring reads; what was captured.

        Raises:
          ValueError: inputs or tap names that do not fit the model.
        """
        maps_tap, probes = f"maps_{self.modality}", probes or {}
        if unknown := sorted({*capture, *probes} - {maps_tap}):
            raise ValueError(f"no tap {unknown} in this model; it has [{maps_tap!r}]")
        x, lengths = branch_input(inputs, self.modality)
        features, maps = branch_of(self, self.modality)(x, lengths, train, probes.get(maps_tap))
        scoring = Scoring(
            self.num_classes,
            self.scoring_hidden,
            self.axis_name,
            name=f"{self.modality}_scoring",
        )
        taps = {"features": features} | dict.fromkeys(capture, maps.astype(jnp.float32))
        return scoring(features, train), taps
