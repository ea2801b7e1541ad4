"""The vector recursion against the dense product over all 1 + N*T tokens, in numpy float64."""

import jax
import numpy as np
import pytest

from aver_jax.models.gradient_rules import TRUE
from aver_jax.relevance import attention as of_attention
from aver_jax.relevance import rollout

LAYERS, BATCH, HEADS, FRAMES, PATCHES = 3, 2, 2, 3, 4
# With other rules for gradients the rows are the same.
METHODS = {name: how for name, how in of_attention.METHODS.items() if how.rules == TRUE}
GRADIENT_METHODS = ("tibav", "rollout_grad")

# Compiled once for all methods that share their static arguments.
space_time_row = jax.jit(rollout.space_time_row, static_argnames=("rollout", "cls_weight"))
attention_row = jax.jit(rollout.attention_row, static_argnames="rollout")


def softmax_and_gradient(rng, *leading, tokens):
    shape = (LAYERS, *leading, HEADS, tokens, tokens)
    scores = np.exp(2 * rng.standard_normal(shape))
    gradient = rng.standard_normal(shape)
    return scores / scores.sum(-1, keepdims=True), gradient


def fused_heads(method, attention, gradient):
    """[..., heads, q, k] -> [..., q, k], written from SPEC's definitions with loops over heads."""
    heads = [attention[..., i, :, :] for i in range(HEADS)]
    if method == "tibav":
        parts = [np.clip(heads[i] * gradient[..., i, :, :], 0, None) for i in range(HEADS)]
        return sum(parts) / HEADS
    if method == "rollout_grad":
        parts = [heads[i] * gradient[..., i, :, :] for i in range(HEADS)]
        return np.clip(sum(parts) / HEADS, 0, None)
    return {
        "rollout_min": np.minimum.reduce(heads),
        "rollout_mean": sum(heads) / HEADS,
        "rollout_max": np.maximum.reduce(heads),
    }[method]


def accumulated(method, matrices):
    """The full relevance matrix after `matrices`, listed in the order in which they act."""
    identity = np.eye(len(matrices[0]))
    relevance = identity
    for matrix in matrices:
        if method == "tibav":
            relevance = relevance + matrix @ relevance
        else:
            mixed = matrix + identity
            mixed = mixed / mixed.sum(axis=1, keepdims=True)
            relevance = mixed @ relevance
    return relevance


def dense_space_time(method, time, space):
    """[T,N] of one clip, from fused time [L,N,T,T] and space [L,T,1+N,1+N]."""

    def token(patch, frame):
        return 1 + patch * FRAMES + frame

    matrices = []
    share = 1 if method in GRADIENT_METHODS else 1 / FRAMES
    for over_time, over_space in zip(time, space, strict=True):
        size = 1 + PATCHES * FRAMES
        through_time, through_space = np.zeros((size, size)), np.zeros((size, size))
        if method != "tibav":
            through_time[0, 0] = 1
        for p in range(PATCHES):
            for t in range(FRAMES):
                for other in range(FRAMES):
                    through_time[token(p, t), token(p, other)] = over_time[p, t, other]
                for other in range(PATCHES):
                    through_space[token(p, t), token(other, t)] = over_space[t, 1 + p, 1 + other]
                through_space[token(p, t), 0] = over_space[t, 1 + p, 0]
                through_space[0, token(p, t)] = share * over_space[t, 0, 1 + p]
        for t in range(FRAMES):
            through_space[0, 0] += share * over_space[t, 0, 0]
        matrices += [through_time, through_space]
    row = accumulated(method, matrices)[0]
    return np.array([[row[token(p, t)] for p in range(PATCHES)] for t in range(FRAMES)])


@pytest.fixture(scope="module")
def divided():
    rng = np.random.default_rng(0)
    time = softmax_and_gradient(rng, BATCH, PATCHES, tokens=FRAMES)
    space = softmax_and_gradient(rng, BATCH, FRAMES, tokens=1 + PATCHES)
    return time, space


def fused_by_library(method, attention, gradient):
    operands = (np.float32(attention), np.float32(gradient))
    return METHODS[method].fuse(*operands[: 1 + METHODS[method].gradient])


@pytest.mark.parametrize("method", METHODS)
def test_divided_space_time_row_is_the_dense_products_cls_row(divided, method):
    time, space = divided
    with_gradient = method in GRADIENT_METHODS
    row = space_time_row(
        fused_by_library(method, *time),
        fused_by_library(method, *space),
        rollout=method != "tibav",
        cls_weight=1 if with_gradient else 1 / FRAMES,
    )
    assert row.shape == (BATCH, FRAMES, PATCHES)
    assert row.dtype == np.float32
    time, space = fused_heads(method, *time), fused_heads(method, *space)
    expected = [dense_space_time(method, time[:, b], space[:, b]) for b in range(BATCH)]
    # The clip's own largest entry is the scale of its rounding.
    np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-6 * np.max(expected))


@pytest.mark.parametrize("method", METHODS)
def test_plain_attention_row_is_the_dense_products_cls_row(divided, method):
    """Joint attention over a clip, and spatial attention frame by frame, are this one function."""
    attention, gradient = divided[1]
    row = attention_row(fused_by_library(method, attention, gradient), rollout=method != "tibav")
    fused = fused_heads(method, attention, gradient)
    expected = [
        [accumulated(method, fused[:, b, t])[0, 1:] for t in range(FRAMES)] for b in range(BATCH)
    ]
    np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-6 * np.max(expected))


def test_plain_rollout_rows_stay_distributions(divided):
    """With attention that sums to 1 the cls row of the product does too; nothing leaks."""
    time, space = (fused_heads("rollout_mean", *pair) for pair in divided)
    row = space_time_row(np.float32(time), np.float32(space), rollout=True, cls_weight=1 / FRAMES)
    cls_share = 2.0**-LAYERS  # what r keeps at least, since every row of I + M gives I one half
    assert (np.sum(row, (1, 2)) < 1 - cls_share + 1e-6).all()
    uniform_space = np.full((LAYERS, BATCH, FRAMES, 1 + PATCHES, 1 + PATCHES), 1 / (1 + PATCHES))
    uniform_time = np.full((LAYERS, BATCH, PATCHES, FRAMES, FRAMES), 1 / FRAMES)
    row = space_time_row(
        np.float32(uniform_time), np.float32(uniform_space), rollout=True, cls_weight=1 / FRAMES
    )
    # cls keeps half of itself in every layer, and receives 1/(1+N) of the other half.
    of_patches = (1 - 1 / (1 + PATCHES)) * (1 - 2.0**-LAYERS)
    np.testing.assert_allclose(row, of_patches / (PATCHES * FRAMES), rtol=1e-6)
