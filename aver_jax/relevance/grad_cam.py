r"""Class activation maps: channels of the last maps, weighted for a class, or without one.

A_c is channel c of the last maps [T,h,w] before the pooling, y the logit of the explained class and
g = dy/dA:

    grad_cam            w_c = mean(g_c)                     cam = (sum_c w_c A_c)^+
    grad_cam_plus_plus  w_c = sum(a_c g_c^+)                cam = (sum_c w_c A_c)^+
                        a = g^2 / (2 g^2 + sum(A_c) g^3 + 1e-6)
    eigen_cam           v, the first principal component of the vectors A at all places
                                                            cam = (sum_c v_c A_c)^+

(Selvaraju et al., ICCV 2017; Chattopadhay et al., WACV 2018, whose a is that of exp(y), as in the
implementations that people use; Muhammad & Yeasin, IJCNN 2020.) Means and sums are over all places
that a weight stands for. On the path `space_time` a channel has one weight for the clip; on the
path `spatial` it has one for each frame (or sound segment). The a of Grad-CAM++ presumes maps after
a ReLU: of signed ones, such as a TimeSformer's normed patches, its denominator can come near 0, and
single weights explode. Eigen-CAM knows no class; vectors are not centred, as in the paper, and v is
turned so that the largest value of its map is positive.
"""

import jax.numpy as jnp
from jax import Array

METHODS = ("grad_cam", "grad_cam_plus_plus", "eigen_cam")
PATHS = ("space_time", "spatial")

# Modality of the inputs -> the maps of its branch.
TAPS = {"frames": "maps_video", "audio": "maps_audio"}


def class_activation(
    method: str, maps: Array, gradient: Array | None, valid: Array, path: str = "space_time"
) -> Array:
    """Returns the class activation map of every frame or segment.

    Args:
      method: one of `METHODS`; static.
      maps: float [B,T,h,w,D].
      gradient: of the explained logit with respect to `maps`, shaped alike; None for eigen_cam.
      valid: bool [B,T]; the rest is padding, which has no part in the weights and no relevance.
      path: one of `PATHS`; static.

    Returns:
      float32 [B,T,h,w], non-negative.
    """
    inside = valid[..., None, None]
    maps = jnp.where(inside[..., None], jnp.float32(maps), 0)
    if method == "eigen_cam":
        return jnp.where(inside, jnp.maximum(_eigen(maps, path), 0), 0)
    gradient = jnp.where(inside[..., None], jnp.float32(gradient), 0)
    if method == "grad_cam":
        weights = gradient.mean((2, 3))
        if path == "space_time":
            weights = weights.sum(1, keepdims=True) / _count(valid)
    else:
        places = (1, 2, 3) if path == "space_time" else (2, 3)
        total = maps.sum(places, keepdims=True)
        square = gradient**2
        share = square / (2 * square + total * square * gradient + 1e-6)
        weights = (share * jnp.maximum(gradient, 0)).sum((2, 3))
        if path == "space_time":
            weights = weights.sum(1, keepdims=True)
    weights = jnp.broadcast_to(weights, (*valid.shape, maps.shape[-1]))
    # Full float32 also where TF32 is the default.
    cam = jnp.einsum("bthwd,btd->bthw", maps, weights, precision="highest")
    return jnp.where(inside, jnp.maximum(cam, 0), 0)


def _count(valid: Array) -> Array:
    return jnp.maximum(valid.sum(1), 1)[:, None, None]


def _eigen(maps: Array, path: str) -> Array:
    """Returns the places' share in the first right singular vector, [B,T,h,w], either sign."""
    batch, frames, height, width, channels = maps.shape
    groups = batch if path == "space_time" else batch * frames
    rows = maps.reshape(groups, -1, channels)
    _, _, vectors = jnp.linalg.svd(rows, full_matrices=False)
    found = jnp.einsum("gpd,gd->gp", rows, vectors[:, 0], precision="highest")
    turned = jnp.where(found.max(1) >= -found.min(1), 1.0, -1.0)
    return (found * turned[:, None]).reshape(batch, frames, height, width)
