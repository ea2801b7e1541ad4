"""TimeSformer (Bertasius et al. 2021): divided, joint and space-only attention over patches."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aver_jax.modality import Modality
from aver_jax.models.attention.fused import check_kernel
from aver_jax.models.functions import Fuse, affine, layer_norm, map_shape
from aver_jax.models.gradient_rules import TRUE, GradientRules
from aver_jax.models.layers import PRODUCT, LayerNorm
from aver_jax.models.model import Model
from aver_jax.models.timesformer import cost
from aver_jax.models.timesformer.block import Block
from aver_jax.models.timesformer.blocks import (
    INIT_STD,
    PatchEmbed,
    checked_keys,
    dense,
    drop_factors,
    normal_init,
)
from aver_jax.models.timesformer.stem import ConvStem

ATTENTION_TYPES = ("divided_space_time", "joint_space_time", "space_only")
REMAT_POLICIES = ("none", "block", "dots")

# Fields of `TimeSformer` by size; Ti, S and B are the sizes of DeiT and ViT. The demo's loop over
# layers is unrolled: a step then takes half the time on a CPU.
SIZES = {
    "demo": {
        "width": 64,
        "depth": 2,
        "num_heads": 4,
        "patch_size": 8,
        "image_size": 48,
        "unroll": 2,
        "init_std": 0.1,
        "pos_embed_std": 0.5,
    },
    "Ti": {"width": 192, "depth": 12, "num_heads": 3, "patch_size": 16, "image_size": 224},
    "S": {"width": 384, "depth": 12, "num_heads": 6, "patch_size": 16, "image_size": 224},
    "B": {"width": 768, "depth": 12, "num_heads": 12, "patch_size": 16, "image_size": 224},
}


class TimeSformer(Model):
    """Video transformer that classifies a clip from its cls token.

    The defaults are the base model for 8 frames of 224 x 224 pixels. Parameters are float32 and
    those of the layers are stacked on axis 0, whatever `unroll` and `remat` say.

    Fields:
      num_classes: number of logits, C.
      image_size: height and width of a frame in pixels, a multiple of patch_size.
      num_frames: frames of a clip, T.
      attention: one of `ATTENTION_TYPES`.
      drop_path: stochastic depth of the last layer; it rises linearly from 0 at the first.
      remat: what the backward pass computes again: "none", "block" (everything inside a layer) or
        "dots" (everything but the results of matrix products with weights).
      unroll: layers compiled per step of the loop over layers; depth means no loop. The train state
        then holds unstacked layers, and compilation takes longer; whether a step is faster depends
        on its size (docs/benchmarks/log.md).
      init_std: initial std of the weights and the cls token.
      pos_embed_std: initial std of the position embeddings. A narrow model trained from scratch
        on few clips needs about .1 and .5: at .02 the position embeddings are too weak, and it
        learns nothing for a thousand steps.
      stem: convolutions of stride 2 before the patches (`stem.ConvStem`); 0: none, as published.
      kernel: what computes attention that is not looked into: "auto", what the device has; "xla";
        "cudnn", cuDNN's fused attention (NVIDIA GPUs, dtype bfloat16; not over time); "pallas", a
        kernel for TPUs, interpreted elsewhere. Those two keep no attention matrix in memory.
      dtype: of the computation; normalisation statistics, softmax, taps and logits are float32.

    Raises ValueError on fields that do not fit together.
    """

    num_classes: int
    image_size: int = 224
    num_frames: int = 8
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4
    attention: str = "divided_space_time"
    drop_path: float = 0.1
    remat: str = "none"
    unroll: int = 1
    init_std: float = INIT_STD
    pos_embed_std: float = INIT_STD
    stem: int = 0
    kernel: str = "auto"
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention not in ATTENTION_TYPES:
            raise ValueError(f"attention is {self.attention!r}, expected one of {ATTENTION_TYPES}")
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"remat is {self.remat!r}, expected one of {REMAT_POLICIES}")
        check_kernel(self.kernel, self.dtype)
        counts = ("image_size", "num_frames", "patch_size", "width", "depth", "num_heads", "unroll")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.stem < 0 or self.patch_size % 2**self.stem:
            raise ValueError(
                f"stem is {self.stem}, expected 0 or as many convolutions as patch_size "
                f"{self.patch_size} can be halved"
            )
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}, expected at least 0 and less than 1")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Video alone."""
        return (Modality.VIDEO,)

    @property
    def has_attention(self) -> bool:
        """Its attention explains it."""
        return True

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one clip's forward pass, as published."""
        return cost.multiply_adds(self)

    @property
    def unstacked(self) -> dict[str, int]:
        """The layers, where no loop runs over them."""
        return {"blocks": self.depth} if self.unroll >= self.depth else {}

    @property
    def compiler_options(self) -> dict[str, bool | int | str]:
        """On NVIDIA GPUs all products by cuBLAS.

        cuBLASLt adds a bias or another array where it has a product. XLA's own kernels for products
        do not: on an H100 they are dearer by 2.6 of 50 ms (inference of the base model, counted;
        docs/benchmarks/log.md).
        """
        return {"xla_gpu_enable_triton_gemm": False}

    def for_inference(self, unrolled: bool) -> "TimeSformer":
        """Returns the network without recomputation, its layers in a loop or not."""
        return self.clone(remat="none", unroll=self.depth if unrolled else 1)

    def input_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shape and dtype of every input for a batch of clips."""
        shape = (batch_size, self.num_frames, self.image_size, self.image_size, 3)
        return {"frames": jax.ShapeDtypeStruct(shape, jnp.float32)}

    def tap_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Returns the shape of every tap (all float32), which is also its probe's."""
        patches, frames, depth = (
            (self.image_size // self.patch_size) ** 2,
            self.num_frames,
            self.depth,
        )
        folded, heads, joint = batch_size * frames, self.num_heads, 1 + patches * frames
        space = {"attention_space": (depth, folded, heads, 1 + patches, 1 + patches)}
        if self.attention == "divided_space_time":
            time = {"attention_time": (depth, batch_size * patches, heads, frames, frames)}
            shapes = time | space | {"block": (depth, batch_size, joint, self.width)}
            shapes |= {"norm1": (depth, folded, 1 + patches, self.width)}
        elif self.attention == "joint_space_time":
            shapes = {
                "attention_joint": (depth, batch_size, heads, joint, joint),
                "block": (depth, batch_size, joint, self.width),
                "norm1": (depth, batch_size, joint, self.width),
            }
        else:
            tokens = (depth, folded, 1 + patches, self.width)
            shapes = space | {"block": tokens, "norm1": tokens}
        return shapes | {"features": (batch_size, self.width)}

    @nn.compact
    def __call__(
        self,
        inputs: Mapping[str, jax.Array],
        train: bool = False,
        keys: jax.Array | None = None,
        capture: tuple[str, ...] = (),
        probes: Mapping[str, jax.Array] | None = None,
        fuse: Fuse | None = None,
        rules: GradientRules = TRUE,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classifies a batch of clips.

        Args:
          inputs: {"frames": float [B, T, H, W, 3]}, normalised.
          train: whether stochastic depth acts; static.
          keys: typed PRNG keys [B], one per clip, needed when stochastic depth acts: a clip's
            randomness does not depend on the rest of its batch.
          capture: names of the taps to return besides "features"; static. An attention that is
            not named is computed by `kernel`.
          probes: {tap: array of the tap's shape (`tap_shapes`)}, added to the tap.
          fuse: (softmax [..., heads, query, key], its gradient) -> map [..., query, key]; static.
            Probes of attention then have the shape of such maps, and the gradient with respect to
            them is the map: no attention matrix and no gradient of one leaves its layer.
          rules: what its gradients are, its values being the same; static.

        Returns:
          logits float32 [B, C], and taps {name: float32 array of the shape in `tap_shapes`}.
          Always "features" (the cls token after the last norm). Tokens of "block" are
          [cls, then index 1 + p*T + t]; "norm1" holds the tokens that attention over space (or
          over all) reads, after its norm, frame by frame where it is over space.
          "attention_time" stacks b*N + p, "attention_space" and the frames of "norm1" b*T + t.

        Raises:
          ValueError: frames, keys, probes or tap names that do not fit the model; a kernel that
            cannot be used here.
        """
        frames, probes = self._checked_frames(inputs), dict(probes or {})
        batch = frames.shape[0]
        self._check_taps(batch, capture, probes, fuse)
        head_probe = probes.pop("features", None)

        x = self._embedded(frames, rules)
        tokens = x.shape[1]
        looked_into = capture or (probes and not fuse)
        fill = 0 if self.kernel == "xla" or looked_into else _fill(tokens)
        x = jnp.pad(x, ((0, 0), (0, fill), (0, 0)))
        drop = {}
        if train and self.drop_path > 0:
            drop = self._drop_factors(checked_keys(keys, batch), fill)
        blocks = self._blocks(tuple(capture), tokens if fill else None, fuse, rules)
        x, taps = blocks(x, {"drop": drop, "probes": probes})
        cls = x[:, 0]
        if self.attention == "divided_space_time":
            cls = cls[:: self.num_frames]  # one of its copies
        elif self.attention == "space_only":
            cls = cls.reshape(batch, self.num_frames, self.width).mean(axis=1)
        features = LayerNorm(jnp.float32, rules, name="norm")(cls)
        if head_probe is not None:
            features = features + head_probe
        logits = dense(self.num_classes, jnp.float32, "head", self.init_std)(features)
        return logits, taps | {"features": features}

    def layer_scores(self, variables: Mapping[str, Any], tokens: jax.Array) -> jax.Array:
        """Returns what norm and head give the mean token of every layer, float32 [L, B, C].

        Args:
          variables: of this network.
          tokens: the tap "block", float32.
        """
        params = variables["params"]
        per_clip = self.num_frames if self.attention == "space_only" else 1
        mean = tokens.reshape(self.depth, -1, per_clip * tokens.shape[2], self.width).mean(axis=2)
        normed = layer_norm(mean, params["norm"]["scale"], params["norm"]["bias"])
        return affine(normed, params["head"]["kernel"], params["head"]["bias"])

    def _embedded(self, frames: jax.Array, rules: GradientRules) -> jax.Array:
        positions = (self.image_size // self.patch_size) ** 2
        cls_token = self.param("cls_token", normal_init(self.init_std), (1, 1, self.width))
        pos_init = normal_init(self.pos_embed_std)
        pos_embed = self.param("pos_embed", pos_init, (1, 1 + positions, self.width))
        size = self.patch_size // 2**self.stem
        if self.stem:
            frames = ConvStem(self.stem, self.width, self.dtype, rules, name="stem")(frames)
        patches = PatchEmbed(self.width, size, self.dtype, name="patch_embed")(frames)
        batch, length, _, width = patches.shape
        offsets = pos_embed[:, None, 1:]
        if self.attention != "space_only":
            zeros = nn.initializers.zeros
            time_embed = self.param("time_embed", zeros, (1, self.num_frames, self.width))
            offsets = offsets + time_embed[:, :, None]
        patches = patches + offsets.astype(self.dtype)
        if self.attention == "joint_space_time":
            patches = patches.swapaxes(1, 2).reshape(batch, positions * length, width)
        else:
            patches = patches.reshape(batch * length, positions, width)
        cls = (cls_token + pos_embed[:, :1]).astype(self.dtype)
        cls = jnp.broadcast_to(cls, (patches.shape[0], 1, width))
        return jnp.concatenate([cls, patches], axis=1)

    def _blocks(
        self,
        capture: tuple[str, ...],
        length: int | None,
        fuse: Fuse | None,
        rules: GradientRules,
    ) -> nn.Module:
        block = Block
        if self.remat != "none":
            policy = None
            if self.remat == "dots":
                policy = jax.checkpoint_policies.save_only_these_names(PRODUCT)
            # Inside a loop, common subexpressions cannot undo the recomputation.
            block = nn.remat(Block, policy=policy, prevent_cse=self.unroll > 1)
        return nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=self.unroll,
        )(
            num_frames=self.num_frames,
            num_heads=self.num_heads,
            mlp_hidden=round(self.width * self.mlp_ratio),
            attention=self.attention,
            capture=capture,
            dtype=self.dtype,
            init_std=self.init_std,
            kernel=self.kernel,
            length=length,
            fuse=fuse,
            rules=rules,
            name="blocks",
        )

    def _drop_factors(self, keys: jax.Array, fill: int = 0) -> dict[str, jax.Array]:
        """Returns {site: float32 [L, rows, ...]}, 0 or 1/(1 - rate), from keys [B] alone.

        `fill`: of `_fill`, tokens at the end of a row.
        """
        positions = (self.image_size // self.patch_size) ** 2
        sites = {
            "divided_space_time": {"time": (positions,), "space": (self.num_frames,), "mlp": ()},
            "joint_space_time": {"attention": (), "mlp": ()},
            # Frames are rows of the batch here, so each is dropped on its own.
            "space_only": {"attention": (self.num_frames,), "mlp": (self.num_frames,)},
        }[self.attention]
        rates = np.linspace(0, self.drop_path, self.depth, dtype=np.float32)
        factors = drop_factors(keys, rates, sites)
        if self.attention == "space_only":
            return {name: factor.reshape(self.depth, -1) for name, factor in factors.items()}
        if self.attention == "divided_space_time":
            # A row of the block is a frame. Its first token, cls, and those that fill it up have no
            # part in attention over time.
            time = jnp.pad(factors["time"], ((0, 0), (0, 0), (1, fill)))
            return {
                "time": jnp.repeat(time, self.num_frames, axis=1),
                "space": factors["space"].reshape(self.depth, -1),
                "mlp": jnp.repeat(factors["mlp"], self.num_frames, axis=1),
            }
        return factors

    def _checked_frames(self, inputs: Mapping[str, jax.Array]) -> jax.Array:
        if "frames" not in inputs:
            raise ValueError(f"TimeSformer needs inputs['frames'], found {sorted(inputs)}")
        frames = inputs["frames"]
        expected = (self.num_frames, self.image_size, self.image_size, 3)
        if frames.ndim != 5 or frames.shape[1:] != expected:
            raise ValueError(
                f"frames have shape {frames.shape}, this model expects (B, T, H, W, 3) = "
                f"(B, {', '.join(map(str, expected))}); sample and resize the clips to that"
            )
        if not jnp.issubdtype(frames.dtype, jnp.floating):
            raise ValueError(
                f"frames are {frames.dtype}, expected normalised floats: see aver_jax.frontend"
            )
        return frames

    def _check_taps(
        self, batch: int, capture: tuple[str, ...], probes: dict, fuse: Fuse | None
    ) -> None:
        shapes = self.tap_shapes(batch)
        unknown = sorted({*capture, *probes} - shapes.keys())
        if unknown:
            raise ValueError(
                f"no tap {unknown} in a {self.attention} TimeSformer; it has {sorted(shapes)}"
            )
        for name, probe in probes.items():
            expected = shapes[name]
            if fuse and name.startswith("attention"):
                expected = map_shape(expected)
            # A probe of another batch size would broadcast silently.
            if jnp.shape(probe) != expected:
                raise ValueError(
                    f"probe {name!r} has shape {jnp.shape(probe)}, expected {expected}"
                )


def _fill(tokens: int) -> int:
    """Returns how many tokens fill rows up to a multiple of 8, as fused kernels want them.

    They are carried through all layers, or every attention would make and cut them again. 0 where
    they would be more than one token in 32: then that is cheaper.
    """
    fill = -tokens % 8
    return fill if 32 * fill <= tokens else 0
