r"""Grad-CAM (Selvaraju et al., ICCV 2017): channels of the last maps, weighted by their gradient.

A_c is channel c of the last maps [T,h,w] before the pooling, y the logit of the explained class:

    w_c = mean(dy/dA_c)        cam = relu(sum_c w_c A_c)

The mean is over all places that a weight stands for. On the path `space_time` a channel has one
weight for the clip, the mean over frames and places; on the path `spatial` it has one for each
frame (or sound segment), the mean over that frame's places.
"""

import jax.numpy as jnp
from jax import Array

METHODS = ("grad_cam",)
PATHS = ("space_time", "spatial")

# Modality of the inputs -> the maps of its branch.
TAPS = {"frames": "maps_video", "audio": "maps_audio"}


def grad_cam(maps: Array, gradient: Array, valid: Array, path: str = "space_time") -> Array:
    """Returns the class activation map of every frame or segment.

    Args:
      maps: float [B,T,h,w,D].
      gradient: of the explained logit with respect to `maps`, shaped alike.
      valid: bool [B,T]; the rest is padding, which has no part in the weights and no relevance.
      path: one of `PATHS`; static.

    Returns:
      float32 [B,T,h,w], non-negative.
    """
    maps, gradient = jnp.float32(maps), jnp.float32(gradient)
    weights = jnp.mean(gradient, axis=(2, 3))
    weights = jnp.where(valid[..., None], weights, 0)
    if path == "space_time":
        count = jnp.maximum(jnp.sum(valid, axis=1), 1)[:, None]
        weights = jnp.broadcast_to(
            (jnp.sum(weights, axis=1) / count)[:, None], (*valid.shape, maps.shape[-1])
        )
    # Full float32 also where TF32 is the default.
    cam = jnp.einsum("bthwd,btd->bthw", maps, weights, precision="highest")
    return jnp.where(valid[..., None, None], jnp.maximum(cam, 0), 0)
