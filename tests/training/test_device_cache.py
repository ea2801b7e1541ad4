"""Clips in the devices' memory: what the step takes from them, and how they lie there."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aver_jax.config import base_config
from aver_jax.errors import UserError
from aver_jax.input import ClipCache, ClipIndex, ClipShape
from aver_jax.models.model import Model
from aver_jax.runtime.data_parallel import MAPPINGS, make_mesh, map_step, replicated, to_devices
from aver_jax.training import device_cache
from aver_jax.training.device_cache import (
    DeviceClips,
    free_memory,
    gathered,
    layout_for,
    place_on_devices,
    shards_of,
)
from aver_jax.training.optimizer import learning_rate, make_optimizer, plateau
from aver_jax.training.state import create_state
from aver_jax.training.step import make_gradients, make_update

CLIPS, GRID, FRAMES, SIDE, BATCH, STEPS = 12, 5, 2, 8, 8, 4
SHAPE = ClipShape(FRAMES, SIDE, 0.05, ("frames", "audio"), GRID)


def cache_of(clips=CLIPS, shape=SHAPE, seed=0) -> ClipCache:
    rng = np.random.default_rng(seed)
    samples = rng.integers(300, 800, clips)
    sound = rng.integers(-3000, 3000, (clips, shape.num_samples + 1)).astype(np.int16)
    index = ClipIndex(
        shape=shape,
        rows=10 * np.arange(clips, dtype=np.int32),
        windows=np.stack([np.zeros(clips), samples / 16_000], 1),
        extents=np.tile([0.0, 0.07], (clips, 1)),
        times=np.tile(np.linspace(0, 0.06, GRID, dtype=np.float32), (clips, 1)),
        samples=samples,
    )
    return ClipCache(
        index=index,
        frames=rng.integers(0, 256, (clips, GRID, SIDE, SIDE, 3), dtype=np.uint8),
        sound=np.where(np.arange(sound.shape[1]) < samples[:, None], sound, 0).astype(np.int16),
    )


def drawn(cache, count, seed):
    """(plan, batch) of random slices of random clips."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(cache.index.rows, count)
    slices = np.sort(rng.random((count, 2)), axis=1)
    rest = {
        "label": (rows // 10 % 3).astype(np.int32),
        "mask": np.ones(count, bool),
        "row": rows,
        "seed": np.arange(count, dtype=np.uint32) + np.uint32(100 * seed),
    }
    return cache.index.plan(rows, slices) | rest, cache.arrays(rows, slices) | rest


def on_devices(cache, devices=1):
    mesh = make_mesh(devices)
    return place_on_devices([cache], len(cache.frames), mesh, "replicated")


def test_the_device_takes_the_batch_that_the_host_would_make():
    cache = cache_of()
    plan, batch = drawn(cache, 40, 1)
    assert (batch["audio_length"] < SHAPE.num_samples).any()
    found = jax.jit(gathered)(on_devices(cache), plan)
    assert found.keys() == batch.keys()
    for name in batch:
        assert found[name].dtype == batch[name].dtype, name
        np.testing.assert_array_equal(found[name], batch[name], err_msg=name)


@pytest.mark.parametrize("absent", ["frames", "sound"])
def test_one_modality_alone_is_taken_alone(absent):
    clips = on_devices(cache_of())
    left = DeviceClips(**{"frames": clips.frames, "sound": clips.sound, "side": SIDE, absent: None})
    plan, batch = drawn(cache_of(), 3, 1)
    names = {"frames": ("frame_index", "frame_times"), "sound": ("audio_start", "audio_length")}
    for name in names[absent]:
        del plan[name]
    found = gathered(left, plan)
    gone = {"frames": {"frames", "frame_times"}, "sound": {"audio", "audio_length"}}[absent]
    assert set(found) == set(batch) - gone


class TinyNet(Model):
    """A network with batch statistics and per-example randomness, of both modalities."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs, train=False, keys=None, capture=(), probes=None):
        x = inputs["frames"].mean(axis=(1, 2))
        x = x.reshape(x.shape[0], -1)
        x = jnp.concatenate([x, inputs["audio"].mean(axis=(1, 3))], 1)
        x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name)(x)
        if train:
            x = x + 0.1 * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        return nn.Dense(3, name="head")(x), {}


def config_of(mapping="shard_map", accumulate=1):
    config = base_config()
    config.parallel = mapping
    config.frontend.spectrogram.update({"n_fft": 32, "window": 32, "hop": 16, "segment": 10})
    config.optimizer.update({"name": "sgd", "lr": 0.1, "accumulate": accumulate})
    config.schedule.update({"name": "constant", "warmup_epochs": 0.0})
    return config


def program_of(config, mesh, layout, steps):
    """(state, step) of TinyNet."""
    model = TinyNet()
    inputs = {"frames": jnp.zeros((1, FRAMES, SIDE, SIDE, 3)), "audio": jnp.zeros((1, 9, 17, 10))}
    variables = model.init(jax.random.key(0), inputs)
    schedule = learning_rate(config, steps_per_epoch=10)
    rule = make_optimizer(config, schedule)
    state = create_state(variables, rule, plateau(config), 0.0, config.seed)
    step = map_step(
        make_gradients(model, config), make_update(rule, config), mesh, config.parallel,
        layout=layout, steps=steps,
    )  # fmt: skip
    return jax.device_put(state, replicated(mesh)), step


def stacked(plans):
    return {name: np.stack([plan[name] for plan in plans]) for name in plans[0]}


def trained(how, mapping="shard_map", accumulate=1, devices=2):
    """Variables and metrics [STEPS] after STEPS steps: from whole batches, plans, all at once."""
    mesh, cache = make_mesh(devices), cache_of()
    config = config_of(mapping, accumulate)
    pairs = [drawn(cache, BATCH, step) for step in range(STEPS)]
    if how == "batches":
        state, step = program_of(config, mesh, None, 1)
        metrics = []
        for _, batch in pairs:
            state, found = step(state, batch)
            metrics.append(jax.device_get(found))
        return jax.device_get(state.variables), stacked(metrics)
    clips = on_devices(cache, devices)
    plans = [plan for plan, _ in pairs]
    if how == "plans":
        state, step = program_of(config, mesh, "replicated", 1)
        metrics = []
        for plan in plans:
            state, found = step(state, plan, clips)
            metrics.append(jax.device_get(found))
        return jax.device_get(state.variables), stacked(metrics)
    state, step = program_of(config, mesh, "replicated", STEPS)
    state, metrics = step(state, stacked(plans), clips)
    return jax.device_get(state.variables), jax.device_get(metrics)


def assert_close(one, other, rtol=1e-6, atol=1e-7):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


@pytest.fixture(scope="module")
def from_batches():
    return trained("batches")


@pytest.mark.parametrize("how", ["plans", "all at once"])
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_steps_from_plans_are_those_from_batches(how, mapping, from_batches):
    assert_close(trained(how, mapping), from_batches, rtol=2e-6, atol=1e-6)


def test_accumulated_parts_take_their_own_clips():
    # One device: batch statistics are those of a part, so it matters which clips a part holds.
    whole = trained("batches", accumulate=2, devices=1)
    assert_close(trained("all at once", accumulate=2, devices=1), whole, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_each_device_takes_from_its_own_part(mapping):
    # Two devices with 7 and 5 clips: together the batch that each part's host would have made.
    mesh, config = make_mesh(2), config_of(mapping)
    caches = [cache_of(7, seed=3), cache_of(5, seed=4)]
    pairs = [drawn(cache, BATCH // 2, 5 + i) for i, cache in enumerate(caches)]
    plan, batch = (
        {name: np.concatenate([pair[which][name] for pair in pairs]) for name in pairs[0][which]}
        for which in (0, 1)
    )
    clips = place_on_devices(caches, 7, mesh, "sharded")
    assert clips.frames.shape == (2, 7, GRID, SIDE * SIDE * 3)
    assert {shard.data.shape[0] for shard in clips.frames.addressable_shards} == {1}
    state, step = program_of(config, mesh, "sharded", 1)
    state, metrics = step(state, plan, clips)
    expected, host_step = program_of(config, mesh, None, 1)
    expected, expected_metrics = host_step(expected, batch)
    found = jax.device_get((state.variables, metrics))
    assert_close(found, jax.device_get((expected.variables, expected_metrics)), 2e-6, 1e-6)


def test_the_clips_are_no_constants_and_not_copied_by_the_program():
    config, mesh, cache = config_of(), make_mesh(1), cache_of(1000)
    clips = on_devices(cache)
    plans = stacked([drawn(cache, BATCH, step)[0] for step in range(STEPS)])
    state, step = program_of(config, mesh, "replicated", STEPS)
    lowered = step.jitted.lower(state, to_devices(plans, mesh, 1), clips)
    assert len(lowered.as_text()) < 300_000
    memory = lowered.compile().memory_analysis()
    assert memory.argument_size_in_bytes > cache.frames.nbytes
    assert memory.temp_size_in_bytes < cache.frames.nbytes / 2


def test_clips_are_on_every_device_where_they_fit_and_divided_where_not():
    assert layout_for(100, 10, 4, None) == "replicated"
    assert layout_for(100, 10, 4, 1700) == "replicated"  # 1000 of 60% of 1700
    assert layout_for(100, 10, 4, 1600) == "sharded"
    assert layout_for(101, 10, 4, 434) == "sharded"  # 26 clips of 10 bytes, of 260.4
    message = (
        r"^config.data.cache is 'device', but 101 clips are 0.0 GB \(0.0 GB on each of 4 devices\) "
        r"and 0.0 GB is free for them \(60% of a device's free memory\); lower .*cache=host$"
    )
    with pytest.raises(UserError, match=message):
        layout_for(101, 10, 4, 430)
    with pytest.raises(UserError, match=r"but 100 clips are 0.0 GB and"):
        layout_for(100, 10, 1, 1600)


def test_all_processes_take_the_layout_of_the_fullest(monkeypatch):
    monkeypatch.setattr(
        device_cache, "largest_of_processes", lambda lacking: 1 if lacks.pop() else 0
    )
    lacks = [False, True]  # another process: not all of them, but a part
    assert layout_for(100, 10, 4, None) == "sharded"
    lacks = [True, True]
    with pytest.raises(UserError, match="and what another process has is free"):
        layout_for(100, 10, 4, None)


def test_devices_that_are_cpus_share_the_hosts_memory():
    mesh = make_mesh(4)
    assert free_memory(mesh, 4000) == 1000
    assert free_memory(mesh, None) is None

    class Device:
        platform = "gpu"

        def __init__(self, used):
            self.used = used

        def memory_stats(self):
            return {"bytes_limit": 100, "bytes_in_use": self.used}

    class Mesh:
        devices = np.array([Device(30), Device(50)])

    Mesh.local_mesh = Mesh
    assert free_memory(Mesh, 4000) == 50


def test_parts_are_disjoint_even_and_mixed():
    rows = np.arange(0, 46, 2)
    parts = shards_of(rows, 4, seed=1)
    assert sorted(map(len, parts)) == [5, 6, 6, 6]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    assert all(len(set(part // 2 % 2)) == 2 for part in parts)
    again = shards_of(rows, 4, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not np.array_equal(shards_of(rows, 4, seed=2)[0], parts[0])
