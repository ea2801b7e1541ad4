"""Stochastic depth, and the ways to compile the layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from aver_jax.models.attention.multi_head import Attention
from aver_jax.models.timesformer.blocks import drop_factors, normal_init
from aver_jax.models.timesformer.timesformer import TimeSformer

RATES = np.linspace(0, 0.4, 3, dtype=np.float32)


@pytest.fixture(scope="module")
def factors():
    keys = jax.random.split(jax.random.key(0), 64)
    return drop_factors(keys, RATES, {"time": (50,), "space": (50,), "mlp": ()})


def test_rate_rises_over_layers_and_the_mean_stays(factors):
    time = np.asarray(factors["time"])
    assert time.shape == (3, 64, 50)
    np.testing.assert_allclose((time == 0).mean(axis=(1, 2)), RATES, atol=0.03)
    np.testing.assert_allclose(time.max(axis=(1, 2)), 1 / (1 - RATES), rtol=1e-6)
    assert factors["mlp"].shape == (3, 64)


def test_layers_sites_clips_and_positions_are_dropped_on_their_own(factors):
    dropped = np.asarray(factors["time"][1:] == 0)
    for one, other in [
        (dropped[0], dropped[1]),
        (dropped[1], np.asarray(factors["space"][2] == 0)),
        (dropped[1, :32], dropped[1, 32:]),
        (dropped[1, :, :25], dropped[1, :, 25:]),
    ]:
        correlation = np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]
        assert abs(correlation) < 0.1


def test_tokens_past_the_length_are_not_attended_to(random_variables):
    attention = Attention(2, jnp.float32, normal_init(0.02))
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    lengths = np.array([5, 2], np.int32)
    variables = random_variables(attention, x)
    out, weights, _ = attention.apply(variables, x, explicit=True, lengths=lengths)
    np.testing.assert_array_equal(np.asarray(weights)[1, :, :, 2:], 0)
    alone, *_ = attention.apply(variables, x[1:, :2])
    np.testing.assert_allclose(out[1:, :2], alone, atol=1e-6)


@pytest.fixture(scope="module")
def trained(tiny):
    """The tiny model in training, compiled, as a function of frames [2, ...] and keys [2]."""
    model, variables = tiny

    @jax.jit
    def run(frames, keys):
        return model.apply(variables, {"frames": frames}, train=True, keys=keys)[0]

    return run


def test_randomness_of_a_clip_depends_on_its_key_alone(trained, clips):
    keys = jax.random.split(jax.random.key(5), 2)
    both = trained(clips, keys)
    np.testing.assert_array_equal(both, trained(clips, keys))
    np.testing.assert_allclose(both[::-1], trained(clips[::-1], keys[::-1]), atol=1e-5)
    # Beside another clip with another key, clip 0 is the same.
    other = trained(np.stack([clips[0], -clips[1]]), jnp.stack([keys[0], jax.random.key(9)]))
    np.testing.assert_allclose(other[0], both[0], atol=1e-5)
    assert np.abs(trained(clips, keys[::-1]) - both).max() > 1e-3


def test_shard_map_and_pmap_drop_what_one_device_drops(trained, tiny, clips):
    model, variables = tiny
    keys = jax.random.split(jax.random.key(5), 2)
    expected = trained(clips, keys)

    def run(frames, keys):
        return model.apply(variables, {"frames": frames}, train=True, keys=keys)[0]

    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    split = PartitionSpec("data")
    mapped = jax.shard_map(run, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    np.testing.assert_allclose(jax.jit(mapped)(clips, keys), expected, atol=1e-5)
    parallel = jax.pmap(run, devices=jax.devices()[:2])(clips[:, None], keys[:, None])
    np.testing.assert_allclose(parallel[:, 0], expected, atol=1e-5)


def test_dropped_layer_leaves_only_the_bias_after_the_time_attention(tiny, clips):
    model, variables = tiny
    # The first layer is always kept, the second practically never.
    model = model.clone(drop_path=0.99999)
    keys = jax.random.split(jax.random.key(0), 2)
    _, taps = jax.jit(
        lambda: model.apply(variables, {"frames": clips}, train=True, keys=keys, capture=("block",))
    )()
    change = taps["block"][1] - taps["block"][0]
    np.testing.assert_allclose(change[:, 0], 0, atol=1e-6)
    bias = variables["params"]["blocks"]["temporal_fc"]["bias"][1]
    np.testing.assert_allclose(change[:, 1:], np.broadcast_to(bias, (2, 12, 24)), atol=1e-5)


def test_frames_of_a_space_only_model_are_dropped_on_their_own(tiny):
    model = tiny[0].clone(attention="space_only", drop_path=0.5)
    factors = model._drop_factors(jax.random.split(jax.random.key(0), 2))
    assert {name: factor.shape for name, factor in factors.items()} == {
        "attention": (2, 6),
        "mlp": (2, 6),
    }


def gradient_of(model, clips):
    keys = jax.random.split(jax.random.key(3), 2)

    def value(params):
        variables = {"params": params}
        logits, _ = model.apply(variables, {"frames": clips}, train=True, keys=keys)
        return (logits * jnp.arange(10.0).reshape(2, 5)).sum(), logits

    return jax.value_and_grad(value, has_aux=True)


@pytest.fixture(scope="module")
def looped(tiny, clips):
    model, variables = tiny
    return jax.jit(gradient_of(model, clips))(variables["params"])


@pytest.mark.parametrize("fields", [{"unroll": 2, "remat": "block"}, {"remat": "dots"}])
def test_unrolling_and_recomputing_change_no_value_and_no_gradient(fields, tiny, clips, looped):
    model, variables = tiny
    found = jax.jit(gradient_of(model.clone(**fields), clips))(variables["params"])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_recomputing_keeps_less_for_the_backward_pass():
    def kept(remat):
        model = TimeSformer(num_classes=6, image_size=64, width=96, num_heads=3, remat=remat)

        def pullback():
            zeros = {"frames": jnp.zeros((2, 8, 64, 64, 3))}
            variables = model.init(jax.random.key(0), zeros)
            return jax.vjp(lambda v: model.apply(v, zeros)[0], variables)[1]

        return sum(x.size for x in jax.tree.leaves(jax.eval_shape(pullback)))

    everything, dots, block = kept("none"), kept("dots"), kept("block")
    assert block < 0.5 * dots
    assert dots < 0.8 * everything
