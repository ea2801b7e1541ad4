"""Random keys per example: a run does not depend on how its batches are spread over devices."""

import jax
from jax import Array

# Folded into an example's key, one number per use, so that no two uses share their randomness.
AUGMENTATION = 0  # of frames
MODEL = 1
SOUND = 2  # augmentation of sound


def example_keys(seed: int | Array, example_seeds: Array) -> Array:
    """Returns typed keys [B]: key i is `fold_in(key(seed), example_seeds[i])`.

    Args:
      seed: the experiment's seed; an int, or uint32 [], which may be traced.
      example_seeds: uint32 [B], a batch's `seed`.
    """
    # Named, because under a user's `jax_default_prng_impl=rbg` a vmapped draw would depend on the
    # whole batch.
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(root, example_seeds)


def stream_keys(keys: Array, stream: int) -> Array:
    """Returns typed keys [B] for one use (say `AUGMENTATION`) of the example keys [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, stream)
