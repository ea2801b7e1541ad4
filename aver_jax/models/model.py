"""What every network gives: its modalities, inputs, taps, and the forms it takes."""

import flax.linen as nn
import jax

from aver_jax.modality import Modality


class Model(nn.Module):
    """A network: `logits, taps = model.apply(variables, inputs, train, keys, capture, probes)`.

    A network overrides what is not as here, so that nothing else has to ask which one it is. It has
    a field `num_classes` and is compared by its fields. `capture` names taps to return; `probes`
    are arrays that are added at a tap, with respect to which relevance differentiates.
    """

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it reads, in the order of its fused features."""
        raise NotImplementedError

    @property
    def takes_one_modality(self) -> bool:
        """Whether it classifies clips that lack one of several modalities."""
        return False

    @property
    def has_attention(self) -> bool:
        """Whether it is explained by its attention; else by its last feature maps.

        Its fields `attention`, a key of `relevance.attention.PATHS`, and `patch_size` say how.
        """
        return False

    @property
    def multiply_adds(self) -> int | None:
        """Multiply-adds of one clip's forward pass, as published; None: what is computed."""
        return None

    @property
    def auxiliary_logits(self) -> tuple[str, ...]:
        """Taps whose cross-entropies are added to the loss."""
        return ()

    @property
    def frozen_subtrees(self) -> tuple[str, ...]:
        """Subtrees of the variables that training takes from parent runs and leaves as they are."""
        return ()

    @property
    def unstacked(self) -> dict[str, int]:
        """Stacks of layers that no loop runs over: subtree of the parameters -> layers."""
        return {}

    @property
    def compiler_options(self) -> dict[str, bool | int | str]:
        """What its programs are compiled with (`jax.jit`'s argument), on any device."""
        return {}

    def input_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns shapes and dtypes of inputs that it can be initialised with."""
        raise NotImplementedError

    def tap_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the attention maps among its taps."""
        return {}

    def with_axis(self, axis_name: str) -> "Model":
        """Returns the network with its batch statistics shared over a mapped axis."""
        return self

    def for_inference(self, unrolled: bool) -> "Model":
        """Returns the network without what only training needs; the variables are the same.

        Args:
          unrolled: whether no loop runs over stacked layers.
        """
        return self
