"""One modality's branch: a CNN on every step, an aggregator over the steps, a norm (thesis 4.4)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aver_jax.modality import Modality
from aver_jax.models.norm import feature_norm
from aver_jax.models.resnet.resnet import STEMS, ResNet
from aver_jax.models.resnet.sequence import Aggregator, check_aggregator, valid_steps

CNNS = ("2d", "3d")

SEGMENTS = "audio_segments"


class BranchFields(nn.Module, kw_only=True):
    """The fields of a branch, which networks of branches have too.

    Fields:
      cnn: "2d", a ResNet on every step and an aggregator over them; or "3d", a ResNet over time as
        well, which leaves nothing to aggregate.
      stage_sizes, width, stem: of the ResNet, whose features are width * 2**(stages - 1) wide.
      aggregator: a kind of `sequence.AGGREGATORS`.
      features: width of the result, D.
      axis_name: mapped axis whose devices share their batch statistics in training.
      dtype: of the CNN's and the aggregator's computation.
    """

    cnn: str = "2d"
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    stem: str = "conv7"
    aggregator: str = "lstm"
    features: int = 512
    axis_name: str | None = None
    dtype: Any = jnp.float32


class Branch(BranchFields):
    """Features of one modality, normalised: f^_m = FeatureNorm(A_m(F_m(x_m))), eqs 24 and 26."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        lengths: jax.Array | None = None,
        train: bool = False,
        probe: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Computes the features of a batch of sequences of images.

        Args:
          x: float [B, T, H, W, C].
          lengths: int32 [B], the valid steps of each sequence; all of them by default. The rest
            changes neither features nor statistics.
          train: whether batch statistics are those of this batch; static.
          probe: float32, of the maps' shape, added to them before they are pooled.

        Returns:
          f^ float32 [B, D], 0 (which is the mean) where there is no valid step, and the maps of
          the CNN's last stage, [B, T, h, w, D'] (fewer steps where the CNN is "3d").
        """
        cnn = ResNet(
            stage_sizes=self.stage_sizes,
            width=self.width,
            stem=self.stem,
            dims=int(self.cnn[0]),
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="cnn",
        )
        batch, steps = x.shape[:2]
        present = None if lengths is None else lengths > 0
        if self.cnn == "3d":
            features, maps = cnn(x, train=train, mask=present, probe=probe)
        else:
            if probe is not None:
                # Folding would let a probe of [T, B, ...] through.
                if probe.shape[:2] != (batch, steps):
                    raise ValueError(
                        f"the probe has shape {probe.shape}, its maps begin with {(batch, steps)}"
                    )
                probe = probe.reshape(-1, *probe.shape[2:])
            valid = None if lengths is None else valid_steps(lengths, steps).reshape(-1)
            pooled, maps = cnn(
                x.reshape(batch * steps, *x.shape[2:]), train=train, mask=valid, probe=probe
            )
            maps = maps.reshape(batch, steps, *maps.shape[1:])
            aggregator = Aggregator(self.aggregator, self.features, self.dtype, name="aggregator")
            features = aggregator(pooled.reshape(batch, steps, -1), lengths)
        normed = feature_norm(self.axis_name, jnp.float32, "norm")(features, train, present)
        if present is not None:
            normed = jnp.where(present[:, None], normed, 0)
        return normed, maps


def branch_of(model: BranchFields, modality: str) -> Branch:
    """Returns a modality's branch, inside a model that has the fields of `Branch`.

    The model's `cnn` is that of its video: segments of sound are images.
    """
    names = {field.name for field in dataclasses.fields(BranchFields)} - {"name", "parent"}
    fields = {name: getattr(model, name) for name in names}
    cnn = model.cnn if modality == "video" else "2d"
    return Branch(**fields | {"cnn": cnn}, name=str(modality))


def check_branch(model: BranchFields) -> None:
    """Raises ValueError unless the branches of a model, see `branch_of`, can have its fields."""
    cnn, features = model.cnn, model.features
    if cnn not in CNNS:
        raise ValueError(f"cnn is {cnn!r}, expected one of {CNNS}")
    if model.stem not in STEMS:
        raise ValueError(f"stem is {model.stem!r}, expected one of {STEMS}")
    if not model.stage_sizes or min(model.stage_sizes) < 1:
        raise ValueError(
            f"stage_sizes is {model.stage_sizes}, expected at least one block in each stage"
        )
    if model.width < 1:
        raise ValueError(f"width is {model.width}, expected at least 1")
    check_aggregator(model.aggregator, features)
    pooled = model.width * 2 ** (len(model.stage_sizes) - 1)
    if (cnn == "3d" or model.aggregator == "mean") and features != pooled:
        what = "a 3d cnn" if cnn == "3d" else "a mean over steps"
        raise ValueError(
            f"features is {features}, but {what} gives those of the ResNet, {pooled} wide; "
            f"set features={pooled}"
        )


def branch_input(
    inputs: Mapping[str, jax.Array], modality: str
) -> tuple[jax.Array, jax.Array | None]:
    """Returns what a modality's branch reads, x [B, T, H, W, C] and lengths [B] or None.

    Args:
      inputs: {"frames": float [B, T, H, W, 3]} for "video"; {"audio": float [B, N, F, W],
        "audio_segments": int32 [B]} for "audio".
      modality: a `Modality` or its name.

    Raises:
      ValueError: the input is missing, of another rank, or not floating.
    """
    name = Modality(modality).array
    wanted = (name,) if modality == "video" else (name, SEGMENTS)
    if missing := [key for key in wanted if key not in inputs]:
        raise ValueError(f"the {modality} branch needs inputs {missing}, found {sorted(inputs)}")
    x = inputs[name]
    shape = "[B, T, H, W, 3]" if modality == "video" else "[B, N, F, W] (segments)"
    if x.ndim != (5 if modality == "video" else 4):
        raise ValueError(f"inputs[{name!r}] have shape {x.shape}, expected {shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"inputs[{name!r}] are {x.dtype}, expected normalised floats: see aver_jax.frontend"
        )
    if modality == "video":
        return x, None
    return x[..., None], inputs[SEGMENTS]


def branch_input_shapes(modality: str, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns small input shapes that a branch can be initialised with; it takes any others too."""
    if modality == "video":
        return {"frames": jax.ShapeDtypeStruct((batch_size, 2, 32, 32, 3), jnp.float32)}
    return {
        "audio": jax.ShapeDtypeStruct((batch_size, 2, 32, 32), jnp.float32),
        SEGMENTS: jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }
