"""Batches hold the right frames and sound, whatever the processes, threads and restarts."""

from itertools import islice

import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.input import (
    clips_cut,
    decode_frames,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from aver_jax.input.clips import ClipShape, clip_arrays
from aver_jax.input.known import video_extent
from aver_jax.input.sampling import frame_indices

from .conftest import CLIPS, RATE, SIDE, loader_of

ROWS = np.arange(CLIPS)
LABELS = (ROWS % 3).astype(np.int32)
BOTH = ("frames", "audio")


def train(dataset, steps, **options):
    loader, options = loader_of({"batch_size": 4, "seed": 7, "num_frames": 4} | options)
    batches = training_batches(dataset, ROWS, LABELS, loader, **options)
    taken = list(islice(batches, steps))
    batches.close()
    return taken


def evaluate(dataset, rows=ROWS, **options):
    loader, options = loader_of({"batch_size": 4, "num_frames": 4} | options)
    return list(evaluation_batches(dataset, rows, LABELS, loader, **options))


def assert_same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


def shown(batch):
    """(clip, frame numbers) that the pixels of each element say."""
    colour = batch["frames"].astype(float).mean((2, 3))
    assert np.allclose(colour[..., 2], 200, atol=3)
    return np.rint(colour[:, 0, 1] / 15).astype(int), np.rint(colour[..., 0] / 10).astype(int)


def test_a_batch_has_the_shapes_and_types_of_its_contract(dataset):
    (batch,) = train(dataset, 1, modalities=BOTH, max_seconds=1.5)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "frames": ((4, 4, SIDE, SIDE, 3), "uint8"),
        "frame_times": ((4, 4), "float32"),
        "audio": ((4, 24_000), "int16"),
        "audio_length": ((4,), "int32"),
        "label": ((4,), "int32"),
        "mask": ((4,), "bool"),
        "row": ((4,), "int32"),
        "seed": ((4,), "uint32"),
    }
    assert batch["mask"].all()


@pytest.mark.parametrize(
    ("modality", "own", "other"),
    [("frames", "frame_times", "audio"), ("audio", "audio_length", "frames")],
)
def test_a_unimodal_batch_has_only_its_own_modality(dataset, modality, own, other):
    (batch,) = train(dataset, 1, modalities=(modality,))
    assert {modality, own} < batch.keys()
    assert other not in batch


def test_training_shows_the_frames_of_the_slice_and_the_same_seconds_of_sound(dataset, records):
    for batch in train(dataset, 6, modalities=BOTH):
        clips, frames = shown(batch)
        np.testing.assert_array_equal(clips, batch["row"])
        np.testing.assert_array_equal(batch["label"], LABELS[batch["row"]])
        for i, clip in enumerate(clips):
            sound = batch["audio"][i, : batch["audio_length"][i]]
            np.testing.assert_array_equal(np.diff(sound), 1)  # consecutive samples
            assert not batch["audio"][i, batch["audio_length"][i] :].any()
            start = sound[0] / RATE
            timestamps = records[clip]["timestamps"]
            np.testing.assert_allclose(
                batch["frame_times"][i] + start, timestamps[frames[i]], atol=1e-4
            )
            stop = start + len(sound) / RATE
            first, last = video_extent(records[clip])
            within = max(start, first), min(stop, last)
            np.testing.assert_array_equal(frames[i], frame_indices(timestamps, *within, 4))


def test_slices_vary_and_can_be_turned_off(dataset):
    lengths = np.concatenate([b["audio_length"] for b in train(dataset, 6, modalities=BOTH)])
    rows = np.concatenate([b["row"] for b in train(dataset, 6, modalities=BOTH)])
    whole = {b: len(dataset.source[b]["pcm"]) // 2 for b in range(CLIPS)}
    shares = lengths / [whole[row] for row in rows]
    assert 0.45 < shares.min() < 0.65
    assert 0.85 < shares.max() <= 1
    for batch in train(dataset, 3, modalities=BOTH, min_slice=1.0):
        np.testing.assert_array_equal(batch["audio_length"], [whole[r] for r in batch["row"]])


def test_a_clip_is_cut_anew_in_every_pass(dataset):
    batches = train(dataset, CLIPS, modalities=("audio",))
    rows = np.concatenate([batch["row"] for batch in batches])
    lengths = np.concatenate([batch["audio_length"] for batch in batches])
    for row in ROWS:
        assert len(np.unique(lengths[rows == row])) == 4


def test_one_clip_alone_can_train(dataset):
    loader, _ = loader_of({"batch_size": 1})
    batches = training_batches(dataset, ROWS[3:4], LABELS, loader, seed=0)
    assert [next(batches)["row"].tolist() for _ in range(3)] == [[3]] * 3
    batches.close()


def test_every_pass_shows_every_clip_once_in_a_new_order(dataset):
    rows = np.concatenate([batch["row"] for batch in train(dataset, CLIPS)])[: 4 * CLIPS]
    passes = rows.reshape(4, CLIPS)
    for one in passes:
        np.testing.assert_array_equal(np.sort(one), ROWS)
    assert len({tuple(one) for one in passes}) == 4


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batches(dataset, processes):
    options = {"modalities": BOTH, "batch_size": 4}
    whole = train(dataset, 5, **options)
    shares = [
        train(dataset, 5, process_index=p, process_count=processes, **options)
        for p in range(processes)
    ]
    joined = [
        {
            name: np.stack([b[name] for b in step], 1).reshape(whole[0][name].shape)
            for name in step[0]
        }
        for step in zip(*shares, strict=True)
    ]
    assert_same(joined, whole)


def test_a_restart_continues_with_the_very_same_batches(dataset):
    assert_same(
        train(dataset, 4, first_step=5, modalities=BOTH), train(dataset, 9, modalities=BOTH)[5:]
    )


def test_threads_do_not_change_the_batches(dataset):
    assert_same(train(dataset, 6, threads=0), train(dataset, 6, threads=4))


def test_the_seed_changes_order_slices_and_example_seeds(dataset):
    one, other = train(dataset, 3), train(dataset, 3, seed=8)
    for name in ("row", "frame_times", "seed"):
        assert any((a[name] != b[name]).any() for a, b in zip(one, other, strict=True)), name


def test_no_two_examples_of_a_run_share_a_seed(dataset):
    seeds = np.concatenate([batch["seed"] for batch in train(dataset, 25)])
    assert len(np.unique(seeds)) == len(seeds) == 100


def test_evaluation_sees_every_clip_exactly_once_in_order(dataset):
    rows = ROWS[::-1][:10]
    batches = evaluate(dataset, rows)
    seen = np.concatenate([batch["row"][batch["mask"]] for batch in batches])
    np.testing.assert_array_equal(seen, rows)
    assert [batch["mask"].sum() for batch in batches] == [4, 4, 2]
    for batch in batches:
        clips, _ = shown(batch)  # padding repeats a real clip
        np.testing.assert_array_equal(clips, batch["row"])


def test_evaluation_looks_at_the_whole_clip(dataset, records):
    for batch in evaluate(dataset, modalities=BOTH):
        _, frames = shown(batch)
        for i, row in enumerate(batch["row"]):
            record = records[row]
            expected = frame_indices(record["timestamps"], *video_extent(record), 4)
            np.testing.assert_array_equal(frames[i], expected)
            assert batch["audio_length"][i] == len(record["pcm"]) // 2


def test_evaluation_batches_agree_with_direct_decoding(dataset):
    """What `predict` computes from a record is what `evaluate` saw."""
    batch = evaluate(dataset, ROWS[:4], image_size=32)[0]
    records = [dataset.source[row] for row in range(4)]
    direct = clip_arrays(records, [(0, 1)] * 4, ClipShape(num_frames=4, image_size=32))
    np.testing.assert_array_equal(batch["frames"], direct["frames"])
    first = frame_indices(records[0]["timestamps"], *video_extent(records[0]), 4)
    np.testing.assert_array_equal(
        decode_frames([records[0]["frames"][f] for f in first], 32), batch["frames"][0]
    )


def test_views_are_side_by_side_and_each_clip_has_all_of_them(dataset):
    batches = evaluate(dataset, views=3, modalities=BOTH)
    mask = np.concatenate([batch["mask"] for batch in batches])
    rows = np.concatenate([batch["row"] for batch in batches])[mask]
    np.testing.assert_array_equal(rows, np.repeat(ROWS, 3))
    starts = np.concatenate([batch["audio"][:, 0] for batch in batches])[mask].reshape(-1, 3)
    assert (np.diff(starts) > 0).all()
    assert (starts[:, 0] == 0).all()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_evaluate_every_clip_once_in_equally_many_batches(dataset, processes):
    shares = [
        evaluate(dataset, ROWS[:9], process_index=p, process_count=processes)
        for p in range(processes)
    ]
    assert {len(share) for share in shares} == {3}
    seen = np.concatenate([b["row"][b["mask"]] for share in shares for b in share])
    np.testing.assert_array_equal(np.sort(seen), ROWS[:9])


def test_long_clips_are_cut_to_their_middle_and_counted(dataset, records):
    assert clips_cut(dataset, ROWS, 6.0) == 0
    assert clips_cut(dataset, ROWS, 0.5) == CLIPS
    for batch in evaluate(dataset, modalities=BOTH, max_seconds=0.5):
        assert batch["audio"].shape == (4, 8000)
        assert (np.abs(batch["audio_length"] - 8000) <= 1).all()
        for i, row in enumerate(batch["row"]):
            record = records[row]
            seconds = max(video_extent(record)[1], len(record["pcm"]) / 2 / RATE)
            assert batch["audio"][i, 0] / RATE == pytest.approx((seconds - 0.5) / 2, abs=1e-4)


def test_frame_times_begin_at_sample_0_of_the_sound_in_cut_clips_too(dataset, records):
    options = {"modalities": BOTH, "max_seconds": 0.6}
    for batch in train(dataset, 4, **options) + evaluate(dataset, views=3, **options):
        clips, frames = shown(batch)
        for i, clip in enumerate(clips):
            start, length = batch["audio"][i, 0] / RATE, batch["audio_length"][i]
            assert start > 0.05  # all clips are cut at both ends
            times = batch["frame_times"][i]
            np.testing.assert_allclose(
                times + start, records[clip]["timestamps"][frames[i]], atol=1e-4
            )
            # No frame is further outside the sound than half of the largest frame interval.
            assert times[0] >= -0.04 - 1e-3
            assert times[-1] <= length / RATE + 0.04 + 1e-3


def test_an_epoch_is_the_whole_batches_of_one_pass():
    assert steps_per_epoch(np.arange(103), 10) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 6, "process_count": 4}, "6 is not divisible by 4 processes"),
        ({"batch_size": 32}, "13 clips, expected at least one batch of 32"),
        ({"min_slice": 0.0}, "min_slice is 0.0"),
        ({"modalities": ("face",)}, "data.modalities is face; expected"),
        ({"num_frames": 0}, "num_frames is 0"),
    ],
)
def test_training_batches_that_cannot_be_made_are_a_clear_error(dataset, options, message):
    with pytest.raises(UserError, match=message):
        train(dataset, 1, **options)


def test_evaluating_nothing_is_a_clear_error(dataset):
    with pytest.raises(UserError, match="no clips to evaluate"):
        evaluate(dataset, ROWS[:0])


def test_a_damaged_record_names_its_clip(dataset):
    record = dict(dataset.source[2])
    record["frames"] = [b"x"] * len(record["frames"])
    with pytest.raises(UserError, match="clip clip02: image 0"):
        clip_arrays([record], [(0, 1)], ClipShape(num_frames=2, image_size=SIDE))


def test_a_clip_without_frames_serves_sound_and_refuses_frames(records):
    record = records[0] | {"frames": [], "timestamps": np.zeros(0, np.float32)}
    heard = clip_arrays([record], [(0, 1)], ClipShape(modalities=("audio",)))
    assert heard["audio_length"][0] == len(record["pcm"]) // 2
    with pytest.raises(UserError, match="clip clip00 has no frames"):
        clip_arrays([record], [(0, 1)], ClipShape())
