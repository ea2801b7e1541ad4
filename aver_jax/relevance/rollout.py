r"""Relevance of the input tokens for the cls token, carried from the last block to the first.

Every attention is a residual layer x <- x + A x V..., so that relevance grows by (I + M), with M
the fused attention over all tokens [cls; patches]. The product over layers R = ... (I + M2)(I + M1)
is needed only in its cls row, and r = e_cls R is a recursion on a vector, last factor first:

    r <- r + r M                        gradient rule (TIBAV)
    r <- q + q M,  q_i = r_i / (1 + sum_j M_ij)      rollout: rows of I + M scaled to sum to 1

Nothing of size (1+N*T)^2 is built. The layers with a norm or an MLP move no relevance between
tokens.

**Divided space-time attention.** A block applies A_T, then A_S, each with its own residual, so that
backwards A_S comes first:  r <- r (I + M_S), then r <- r (I + M_T). Written for the clip's tokens
cls and (p, t), with A_T[p] the [T,T] map at patch position p, and A_S[t] the [1+N,1+N] map of frame
t, whose token 0 is that frame's copy of cls:

    M_S[(p,t), (p',t)] = A_S[t][1+p, 1+p']      M_S[(p,t), cls] = A_S[t][1+p, 0]
    M_S[cls, (p,t)] = w A_S[t][0, 1+p]          M_S[cls, cls] = w sum_t A_S[t][0, 0]
    M_T[(p,t), (p,t')] = A_T[p][t, t']          M_T[cls, :] = 0

and 0 elsewhere. The block averages the cls outputs of its T frames: w = 1/T for plain attention
(whose cls row then sums to 1), and w = 1 for gradient-weighted maps, since dA carries that 1/T
already. cls is no part of the temporal attention and passes it by its residual alone: its row of
I + M_T is e_cls. (Rollout's usual statement puts e_cls into M_T; after I is added and the row is
scaled, that is the same row.)
"""

import jax
import jax.numpy as jnp
from jax import Array


def space_time_row(time: Array, space: Array, rollout: bool, cls_weight: float) -> Array:
    """Returns the cls row of divided attention's recursion, over the patches: float32 [B,T,N].

    Args:
      time: fused [L,B,N,T,T], non-negative.
      space: fused [L,B,T,1+N,1+N], non-negative.
      rollout: whether rows of I + M are scaled to sum to 1; static.
      cls_weight: w above; static.
    """

    def back(row: tuple[Array, Array], maps: tuple[Array, Array]):
        (cls, patches), (over_time, over_space) = row, maps
        cls, patches = _through_space(cls, patches, over_space, rollout, cls_weight)
        patches = _through_time(patches, over_time, rollout)
        return (cls, patches), None

    batch, frames, tokens = space.shape[1:4]
    start = (jnp.ones((batch,)), jnp.zeros((batch, frames, tokens - 1)))
    (_, patches), _ = jax.lax.scan(back, start, (time, space), reverse=True)
    return patches


def attention_row(attention: Array, rollout: bool) -> Array:
    """Returns the cls row of self-attention's recursion, without cls: float32 [..., S].

    This is joint space-time attention (S = N*T), and one frame alone (S = N).

    Args:
      attention: fused [L, ..., 1+S, 1+S], non-negative; token 0 is cls.
      rollout: whether rows of I + M are scaled to sum to 1; static.
    """

    def back(row: Array, over_tokens: Array):
        if rollout:
            row = row / (1 + jnp.sum(over_tokens, axis=-1))
        return row + _times(row, over_tokens), None

    start = jnp.zeros(attention.shape[1:-1]).at[..., 0].set(1)
    row, _ = jax.lax.scan(back, start, attention, reverse=True)
    return row[..., 1:]


def _through_space(cls, patches, attention, rollout, cls_weight):
    """Returns (cls [B], patches [B,T,N]) times (I + M_S), from attention [B,T,1+N,1+N]."""
    if rollout:
        sums = jnp.sum(attention, axis=-1)
        cls = cls / (1 + cls_weight * jnp.sum(sums[..., 0], axis=-1))
        patches = patches / (1 + sums[..., 1:])
    copies = jnp.broadcast_to(cls_weight * cls[:, None, None], (*patches.shape[:2], 1))
    moved = _times(jnp.concatenate([copies, patches], axis=-1), attention)
    return cls + jnp.sum(moved[..., 0], axis=-1), patches + moved[..., 1:]


def _through_time(patches, attention, rollout):
    """Returns patches [B,T,N] times (I + M_T) without its cls row and column, from [B,N,T,T]."""
    by_position = patches.swapaxes(1, 2)
    if rollout:
        by_position = by_position / (1 + jnp.sum(attention, axis=-1))
    return (by_position + _times(by_position, attention)).swapaxes(1, 2)


def _times(row: Array, matrix: Array) -> Array:
    """Multiplies row [..., Q] by matrix [..., Q, K], in full float32 where TF32 is the default."""
    return jnp.einsum("...q,...qk->...k", row, matrix, precision=jax.lax.Precision.HIGHEST)
