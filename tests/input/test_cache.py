"""Batches from clips decoded once are those decoded on the fly, bit for bit."""

from itertools import islice

import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.input import Loader, SideBySide, cache, cache_bytes, decode_cache, training_batches
from aver_jax.input.clips import ClipShape, clip_arrays, clip_window
from aver_jax.input.sampling import frame_indices

from .conftest import CLIPS, loader_of

ROWS = np.random.default_rng(0).permutation(CLIPS)[:11].astype(np.int32)
LABELS = (np.arange(CLIPS) % 3).astype(np.int32)
BOTH = ("frames", "audio")
MODALITIES = [("frames",), ("audio",), BOTH]


def train(dataset, steps, made_of=None, grid=5, **options):
    options = {
        "batch_size": 4,
        "seed": 7,
        "num_frames": 4,
        "image_size": 32,
        "max_seconds": 0.6,
        "grid": grid,
        "cache": made_of,
        "rows": ROWS,
    } | options
    loader, options = loader_of(options)
    batches = training_batches(dataset, options.pop("rows"), LABELS, loader, **options)
    taken = list(islice(batches, steps))
    batches.close()
    return taken


def decoded(dataset, modalities=BOTH, grid=5, rows=ROWS, max_seconds=0.6, **options):
    return decode_cache(dataset, rows, ClipShape(4, 32, max_seconds, modalities, grid), **options)


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            assert left[name].dtype == right[name].dtype, name
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("modalities", MODALITIES, ids=" ".join)
@pytest.mark.parametrize("max_seconds", [0.6, 0.33333, 1.5])
def test_a_cache_gives_the_batches_that_decoding_gives(dataset, modalities, max_seconds):
    # Clips last 0.8 to 1.1 s: cut by one, not by the other.
    made_of = decoded(dataset, modalities, max_seconds=max_seconds, threads=3)
    options = {"modalities": modalities, "max_seconds": max_seconds}
    assert_same(train(dataset, 9, **options), train(dataset, 9, made_of, **options))


def test_a_grid_of_every_frame_is_no_grid_where_clips_are_whole(dataset):
    # 60 frames by time of at most 22 hold each of them.
    options = {"modalities": BOTH, "max_seconds": 1.5}
    assert_same(train(dataset, 6, grid=200, **options), train(dataset, 6, grid=0, **options))


def test_a_slice_shows_frames_of_the_grid_alone(dataset, records):
    for batch in train(dataset, 6, modalities=BOTH):
        for i, row in enumerate(batch["row"]):
            timestamps = records[row]["timestamps"]
            grid = timestamps[frame_indices(timestamps, *clip_window(records[row], 0.6), 5)]
            start = batch["audio"][i, 0] / 16_000  # samples say their number
            distance = np.abs(batch["frame_times"][i][:, None] + start - grid).min(1)
            assert distance.max() < 1e-4


@pytest.mark.parametrize("made_of", ["cache", "plan"])
def test_the_batches_of_processes_and_restarts_are_the_same(dataset, made_of):
    cached = decoded(dataset)
    given = cached if made_of == "cache" else cached.index
    whole = train(dataset, 6, given, modalities=BOTH)
    assert_same(whole[4:], train(dataset, 2, given, modalities=BOTH, first_step=4, threads=0))
    shares = [
        train(dataset, 6, given, modalities=BOTH, process_index=index, process_count=2)
        for index in range(2)
    ]
    for step, batch in enumerate(whole):
        for index in range(2):
            share = shares[index][step]
            for name in batch:
                np.testing.assert_array_equal(batch[name][index::2], share[name])


def test_a_plan_says_what_to_take(dataset):
    cached = decoded(dataset)
    batches = train(dataset, 5, cached, modalities=BOTH)
    plans = train(dataset, 5, cached.index, modalities=BOTH)
    for batch, plan in zip(batches, plans, strict=True):
        assert plan.keys() == batch.keys() - {"frames", "audio"} | {
            "position", "frame_index", "audio_start",
        }  # fmt: skip
        for name in plan.keys() & batch.keys():
            np.testing.assert_array_equal(plan[name], batch[name])
        np.testing.assert_array_equal(ROWS[plan["position"]], batch["row"])
        for i, (position, start, length) in enumerate(
            zip(plan["position"], plan["audio_start"], plan["audio_length"], strict=True)
        ):
            frames = cached.frames[position][plan["frame_index"][i]]
            np.testing.assert_array_equal(frames, batch["frames"][i])
            sound = cached.sound[position][start : start + length]
            np.testing.assert_array_equal(sound, batch["audio"][i, :length])


def test_parts_have_streams_of_their_own_and_no_seed_twice(dataset):
    parts = [ROWS[:6], ROWS[6:]]
    iterators = [
        training_batches(
            dataset, rows, LABELS, Loader(ClipShape(4, 32, 0.6, grid=5), 2), seed=7, shard=(i, 2),
            cache=decoded(dataset, ("frames",), rows=rows).index,
        )
        for i, rows in enumerate(parts)
    ]  # fmt: skip
    joined = SideBySide(iterators)
    batches = list(islice(joined, 12))
    joined.close()
    rows = np.stack([batch["row"] for batch in batches])
    for i, own in enumerate(parts):
        assert set(rows[:, 2 * i : 2 * i + 2].ravel()) == set(own)
    seeds = np.concatenate([batch["seed"] for batch in batches])
    assert len(set(seeds)) == 48
    assert batches[0]["frame_index"].shape == (4, 4)


def test_silence_and_sound_that_ends_early_are_served_alike(dataset, records):
    class Source(list):
        pass

    silent = records[0] | {"pcm": b""}
    short = records[1] | {"pcm": records[1]["pcm"][:2000]}  # 62 ms, before the window begins
    given = type(dataset)(
        dataset.path, dataset.name, dataset.classes, dataset.preparation, dataset.index,
        Source([silent, short]),
    )  # fmt: skip
    shape = ClipShape(4, 32, 0.6, BOTH, 5)
    rows, slices = np.array([0, 1, 1]), np.array([[0, 1], [0, 1], [0.4, 0.9]])
    cached = decode_cache(given, np.array([0, 1]), shape)
    direct = clip_arrays([silent, short, short], slices, shape)
    assert_same([cached.arrays(rows, slices)], [direct])
    assert direct["audio_length"].tolist() == [0, 0, 0]


def test_memory_that_does_not_suffice_is_told_before_anything_is_read(dataset, monkeypatch):
    monkeypatch.setattr(cache, "available_memory", lambda: 100_000)
    monkeypatch.setattr(type(dataset.source), "__getitem__", None)
    message = (
        r"^the cache of 11 clips x 5 frames of 32 px needs 0\.0 GB and 0\.0 GB of memory are "
        r"available; lower config\.data\.cache_frames .*cache=none$"
    )
    with pytest.raises(UserError, match=message):
        decoded(dataset)
    monkeypatch.setattr(cache, "available_memory", lambda: None)  # not known: tried
    with pytest.raises(TypeError):
        decoded(dataset)


def test_the_bytes_of_a_cache_are_those_of_its_arrays(dataset):
    cached = decoded(dataset)
    found = cached.frames.nbytes + cached.sound.nbytes
    assert cache_bytes(len(ROWS), cached.index.shape) == found
    assert cache.available_memory() is None or cache.available_memory() > 2**20


def test_a_damaged_clip_is_named_and_ends_the_decoding(dataset, records):
    damaged = [dict(record) for record in records]
    damaged[int(ROWS[3])]["frames"] = [b"x"] * 30
    given = type(dataset)(
        dataset.path, dataset.name, dataset.classes, dataset.preparation, dataset.index, damaged
    )
    with pytest.raises(UserError, match=f"clip clip{ROWS[3]:02d}: image 0"):
        decoded(given, threads=2)
    damaged[int(ROWS[3])] |= {"frames": [], "timestamps": np.zeros(0, np.float32)}
    with pytest.raises(UserError, match=f"clip clip{ROWS[3]:02d} has no frames"):
        decoded(given)


def test_a_cache_needs_a_grid(dataset):
    with pytest.raises(UserError, match="cache_frames, expected more than 0"):
        decoded(dataset, grid=0)
    decoded(dataset, ("audio",), grid=0)
    with pytest.raises(UserError, match=r"cache_frames is -1, expected 0 \(every frame\) or more"):
        ClipShape(grid=-1)


def test_a_cache_of_other_clips_is_a_mistake_of_the_caller(dataset):
    cached = decoded(dataset, rows=ROWS[:8])
    with pytest.raises(ValueError, match="cache is one of other clips"):
        train(dataset, 1, cached, modalities=BOTH)


def test_the_time_of_decoding_is_told(dataset):
    lines = []
    decoded(dataset, say=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("the cache of 11 clips x 5 frames of 32 px: 0.00 GB, decoded in ")
