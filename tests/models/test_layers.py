"""Layers with gradients by hand beside flax's and jax's, differentiated automatically."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.models import custom_gradients, functions
from aver_jax.models.custom_gradients import attend, gelu
from aver_jax.models.layers import Dense, LayerNorm

# Of the largest value: of a mantissa of 24 bits and of 8, with sums over up to 34 rows.
TOLERANCES = {"float32": 2e-6, "bfloat16": 2e-2}
dtypes = pytest.mark.parametrize("dtype", TOLERANCES)


def drawn(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def assert_alike(function, other, arguments, dtype):
    """Both functions give the same results, and the same gradients of random sums of them."""

    @jax.jit(static_argnums=0)
    def outputs(function, arguments):
        results, pull = jax.vjp(function, *arguments)
        leaves = jax.tree.leaves(results)
        weights = drawn(*(leaf.shape for leaf in leaves))
        weights = [w.astype(x.dtype) for w, x in zip(weights, leaves, strict=True)]
        return results, pull(jax.tree.unflatten(jax.tree.structure(results), weights))

    found, expected = outputs(function, arguments), outputs(other, arguments)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == two.dtype
        one, two = (np.asarray(x, np.float32) for x in (one, two))
        np.testing.assert_allclose(one, two, rtol=0, atol=TOLERANCES[dtype] * np.abs(two).max())


@pytest.fixture(params=["this device", "other devices"], autouse=True)
def branches(request, monkeypatch):
    """What CPUs do otherwise is seen as well."""
    if request.param == "other devices":
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda x, *, default, **_: default(x))


@dtypes
def test_dense_is_flaxs(dtype):
    ours = Dense(7, dtype=dtype, kernel_init=nn.initializers.ones)
    theirs = nn.Dense(7, dtype=dtype)
    x, kernel, bias = drawn((2, 17, 5), (5, 7), (7,))
    params = {"params": {"kernel": kernel, "bias": bias}}
    assert_alike(ours.apply, theirs.apply, (params, x.astype(dtype)), dtype)


@dtypes
def test_layer_norm_is_flaxs(dtype):
    x, scale, bias = drawn((2, 17, 24), (24,), (24,))
    # Far from 0: there the other formula of the variance loses its digits.
    x = (3 * x + 40).astype(dtype)
    ours, theirs = LayerNorm(dtype), nn.LayerNorm(1e-6, dtype=dtype, use_fast_variance=False)
    assert_alike(ours.apply, theirs.apply, ({"params": {"scale": scale, "bias": bias}}, x), dtype)


@dtypes
def test_gelu_is_the_exact_one(dtype):
    (x,) = drawn((3, 50))
    assert_alike(gelu, lambda x: jax.nn.gelu(x, approximate=False), (3 * x.astype(dtype),), dtype)


@pytest.fixture(params=TOLERANCES)
def heads(request):
    return [x.astype(request.param) for x in drawn(*[(3, 2, 6, 8)] * 3)]


def plain(q, k, v, valid, probe):
    scores = jnp.einsum("ahqd,ahkd->ahqk", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    if valid is not None:
        scores = jnp.where(valid, scores, -1e30)
    weights = jax.nn.softmax(scores)
    weights = weights if probe is None else weights + probe
    return weights.astype(q.dtype) @ v, weights


def test_attention_is_jaxs(heads):
    """That of jax has the axes [A, S, h, d], and lengths of at least 1."""

    def jaxs(q, k, v):
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        lengths = jnp.array([6, 2, 1])
        return jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths).swapaxes(1, 2)

    valid = jnp.arange(6)[None, None, None] < jnp.array([6, 2, 1])[:, None, None, None]
    ours = lambda *heads: attend(*heads, valid, None)[0]  # noqa: E731
    assert_alike(ours, jaxs, heads, heads[0].dtype.name)


@pytest.mark.parametrize("lengths", [None, (6, 2, 0)])
def test_attention_is_softmax_and_products(heads, lengths):
    valid = None
    if lengths is not None:
        valid = jnp.arange(6)[None, None, None] < jnp.array(lengths)[:, None, None, None]
    assert_alike(
        lambda *heads: attend(*heads, valid, None),
        lambda *heads: plain(*heads, valid, None),
        heads,
        heads[0].dtype.name,
    )


def test_a_probe_is_added_to_the_softmax(heads):
    (probe,) = drawn((3, 2, 6, 6))
    assert_alike(
        lambda *given: attend(*given[:3], None, given[3]),
        lambda *given: plain(*given[:3], None, given[3]),
        (*heads, probe),
        heads[0].dtype.name,
    )


def test_sums_of_many_rows_in_bfloat16_are_float32():
    """Summed in bfloat16, 4,096 ones would stop at 256."""
    ours = Dense(2, dtype=jnp.bfloat16, kernel_init=nn.initializers.ones)
    params = {"params": {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(2)}}
    of_params = jax.grad(lambda p: ours.apply(p, jnp.ones((4096, 1))).astype(jnp.float32).sum())
    for gradient in jax.tree.leaves(of_params(params)):
        np.testing.assert_array_equal(gradient, 4096)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_layers_compile_for_gpus(dtype):
    def forward(params, x):
        x = LayerNorm(dtype).apply({"params": params["norm"]}, x)
        x = Dense(8, dtype=dtype, kernel_init=nn.initializers.ones).apply(
            {"params": params["dense"]}, x
        )
        heads = gelu(x)[:, None]
        return attend(heads, heads, heads, None, None)[0].astype(jnp.float32).sum()

    x, scale, bias, kernel = drawn((2, 6, 5), (5,), (5,), (5, 8))
    params = {
        "norm": {"scale": scale, "bias": bias},
        "dense": {"kernel": kernel, "bias": jnp.zeros(8)},
    }
    traced = jax.jit(jax.grad(forward)).trace(params, x)
    assert "optimization_barrier" not in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("masked", [False, True])
def test_tuned_functions_are_the_plain_ones_with_their_gradients(masked):
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 2, 2, 5, 4)).astype(np.float32)
    valid = np.arange(5)[None, None, None] < np.array([3, 5])[:, None, None, None]
    attention = (q, k, v, valid if masked else None, None)
    x, kernel, offset = (np.float32(rng.normal(size=s)) for s in ((3, 6), (6, 4), (4,)))
    cases = {
        "affine": ((x, kernel, offset), 3),
        "affine without bias": ((x, kernel, None), 2),
        "standardized": ((x,), 1),
        "gelu": ((x,), 1),
        "attend": (attention, 3),
    }
    for name, (arguments, count) in cases.items():
        plain, tuned = (getattr(m, name.split()[0]) for m in (functions, custom_gradients))

        def loss(function, *differentiated, rest=arguments[count:]):
            leaves = jax.tree.leaves(function(*differentiated, *rest))
            return sum(jnp.sin(leaf).sum() for leaf in leaves)

        found, expected = (jax.jit(lambda *a, f=f: f(*a))(*arguments) for f in (tuned, plain))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        gradients = [
            jax.grad(functools.partial(loss, f), argnums=tuple(range(count)))(*arguments[:count])
            for f in (tuned, plain)
        ]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *gradients
        )
