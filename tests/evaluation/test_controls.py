"""Controls change what they say and nothing else; scores of them are beside those of the clips."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax.errors import UserError
from aver_jax.evaluation import clip_batches, control_scores, controls, job, metrics
from aver_jax.evaluation.clip_batches import ClipBatches
from aver_jax.evaluation.evaluator import Evaluator, evaluation_loader
from aver_jax.evaluation.forward import Forward
from aver_jax.input import ClipShape, Dataset, Loader
from aver_jax.modality import Modality
from aver_jax.report import sections
from aver_jax.runtime.data_parallel import make_mesh

CLASSES = ("ANG", "HAP", "SAD")
CLIPS, FRAMES = 30, 6
LABELS = np.arange(CLIPS) % 3
ACTORS = np.repeat(np.arange(10), 3)
# Brightness of a clip's first frame, and loudness of its sound, by label.
SHOWN, HEARD = np.array([40, 110, 180]), np.array([1000, 4000, 16_000])
BOTH = (Modality.VIDEO, Modality.AUDIO)


def _record(label, row):
    # Later frames are brighter; sounds differ in length, from 0.5 s on.
    frames = [np.full((8, 8, 3), SHOWN[label] + 8 * step, np.uint8) for step in range(FRAMES)]
    return {
        "frames": [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames],
        "timestamps": np.arange(FRAMES, dtype=np.float32) / FRAMES,
        "pcm": np.full(8000 + 100 * row, HEARD[label], "<i2").tobytes(),
        "clip_id": f"clip{row:02d}".encode(),
    }


@pytest.fixture(scope="module")
def dataset():
    columns = {
        "row": np.arange(CLIPS, dtype=np.int32),
        "clip_id": np.array([f"clip{i:02d}" for i in range(CLIPS)]),
        "actor": ACTORS.astype(str),
        "sex": np.where(ACTORS % 2, "female", "male"),
        "label": np.array(CLASSES)[LABELS],
        "seconds": np.ones(CLIPS),
    }
    preparation = {"dataset": "synthetic", "classes": list(CLASSES), "size": 8, "margin": 1.3}
    source = [_record(label, row) for row, label in enumerate(LABELS)]
    return Dataset(Path("data"), "synthetic", CLASSES, preparation, columns, source)


def _loader(batch_size=4, modalities=BOTH, num_frames=4):
    return Loader(ClipShape(num_frames, 8, 1.0, modalities), batch_size, threads=0)


def _clips(dataset, rows=range(7), views=1, keep=False, **loader):
    """7 clips in batches of 4: the last batch needs padding."""
    return ClipBatches(dataset, np.array(rows), LABELS, _loader(**loader), views, keep)


def _stacked(batches):
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)


def _control(name, shape=None):
    found = controls.controls_of(shape or _loader().shape)
    return next(control for control in found if control.name == name)


def _names(**fields):
    return [control.name for control in controls.controls_of(_loader(**fields).shape)]


def test_only_controls_of_what_a_model_reads_are_listed():
    of_frames = [
        "frames shuffled", "frames reversed", "one frame repeated", "two frames repeated",
    ]  # fmt: skip
    of_sound, face = ["sound of another clip", "silence"], ["face of another clip"]
    assert _names() == of_frames + of_sound + face
    assert _names(modalities=(Modality.VIDEO,)) == of_frames + face
    assert _names(modalities=(Modality.AUDIO,)) == of_sound
    assert _names(num_frames=1) == of_sound + face  # one frame has no order


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("name", _names())
def test_a_control_changes_its_own_modality_alone(dataset, name, views):
    clips = _clips(dataset, views=views)
    before, after = _stacked(clips), _stacked(_control(name).batches(clips))
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    frames, sound = {"frames"}, {"audio"}
    assert changed <= {
        "sound of another clip": {"audio", "audio_length"},
        "silence": sound,
        "face of another clip": {"frames", "frame_times"},
    }.get(name, frames)
    assert changed >= (sound if "sound" in name or name == "silence" else frames)
    for key, array in before.items():
        assert (after[key].shape, after[key].dtype) == (array.shape, array.dtype)
    assert (np.diff(after["frame_times"], axis=1) >= 0).all()
    beyond = np.arange(after["audio"].shape[1]) >= after["audio_length"][:, None]
    assert not after["audio"][beyond].any()


def test_frames_are_reordered_and_none_is_lost(dataset):
    clips = _clips(dataset)
    frames = _stacked(clips)["frames"]
    reordered = _stacked(_control("frames shuffled").batches(clips))["frames"]
    backwards = _stacked(_control("frames reversed").batches(clips))["frames"]
    frozen = _stacked(_control("one frame repeated").batches(clips))["frames"]
    np.testing.assert_array_equal(np.sort(reordered, axis=1), frames)
    assert (reordered != frames).any(axis=(1, 2, 3, 4)).all()
    np.testing.assert_array_equal(backwards[:, ::-1], frames)
    np.testing.assert_array_equal(frozen, np.repeat(frames[:, 2:3], 4, axis=1))
    two = _stacked(_control("two frames repeated").batches(clips))["frames"]
    np.testing.assert_array_equal(two, frames[:, [0, 0, 2, 2]])


def test_the_order_of_a_clips_frames_is_the_same_in_any_batch_and_view(dataset):
    def shuffled(**how):
        batch = _stacked(_control("frames shuffled").batches(_clips(dataset, **how)))
        places = (batch["frames"].mean((2, 3, 4))).argsort(1).argsort(1)[batch["mask"]]
        rows = batch["row"][batch["mask"]]
        return {int(row): tuple(order) for row, order in zip(rows, places, strict=True)}, rows

    orders, _ = shuffled()
    assert len(set(orders.values())) > 1
    assert shuffled(rows=range(6, -1, -1), batch_size=3)[0] == orders


def test_silence_keeps_the_length_of_the_sound(dataset):
    clips = _clips(dataset)
    after = _stacked(_control("silence").batches(clips))
    assert not after["audio"].any()
    np.testing.assert_array_equal(after["audio_length"], _stacked(clips)["audio_length"])


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("modality", BOTH)
def test_another_clip_may_come_from_any_batch(dataset, keep, views, modality):
    clips = _clips(dataset, views=views, keep=keep)
    before = _stacked(clips)
    others = np.array([6, 5, 4, 0, 1, 2, 3])
    after = _stacked(clips.with_others(modality, others))
    name = modality.array
    of_clip = before[name][: 7 * views].reshape(7, views, *before[name].shape[1:])
    expected = of_clip[others].reshape(7 * views, *before[name].shape[1:])
    np.testing.assert_array_equal(after[name][: 7 * views], expected)
    # Padding repeats the last clip, as it does without controls.
    padding = after[name][7 * views :]
    np.testing.assert_array_equal(padding, np.repeat(expected[-1:], len(padding), axis=0))
    for key in ("row", "mask", "label", "seed"):
        np.testing.assert_array_equal(after[key], before[key])


def test_kept_batches_are_decoded_once(dataset, monkeypatch):
    decoded = []
    original = clip_batches.evaluation_batches
    monkeypatch.setattr(
        clip_batches, "evaluation_batches", lambda *a: decoded.append(1) or original(*a)
    )
    for keep, passes in ((True, 1), (False, 10)):
        decoded.clear()
        clips = _clips(dataset, keep=keep)
        for batches in (clips, *(c.batches(clips) for c in controls.controls_of(_loader().shape))):
            assert len(list(batches)) == len(clips) == 2
        assert len(decoded) == passes  # without memory the two of another clip read two streams


@pytest.mark.parametrize("count", [2, 3, 7, 100])
def test_a_derangement_leaves_no_clip_in_its_place(count):
    for seed in range(20):
        others = controls.derangement(count, seed)
        np.testing.assert_array_equal(np.sort(others), np.arange(count))
        assert (others != np.arange(count)).all()
    np.testing.assert_array_equal(controls.derangement(count), controls.derangement(count))


def test_one_clip_alone_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"needs at least 2 clips.* and there is 1; leave"):
        controls.derangement(1)


class Fused:
    """Adds up what the first frame's brightness and the sound's loudness say, by `weights`."""

    compiler_options = None

    def for_inference(self, unrolled):
        return self

    def apply(self, variables, inputs, train=False):
        face, mean_face = (
            inputs["frames"][:, 0].mean((1, 2, 3)),
            inputs["frames"].mean((1, 2, 3, 4)),
        )
        voice = inputs["audio"]
        first, mean, sound = variables["params"]["weights"]
        logits = first * _near(face, SHOWN / 127.5 - 1) + mean * _near(
            mean_face, (SHOWN + 8 * 2.5) / 127.5 - 1
        )
        return logits + sound * _near(voice, np.log(HEARD)), {}


def _near(values, centres):
    return -((values[:, None] - jax.numpy.asarray(centres, "float32")[None]) ** 2)


def _weights(first=0.0, mean=0.0, sound=0.0):
    return {"params": {"weights": np.float32([first, mean, sound])}}


@pytest.fixture
def front_end(monkeypatch):
    """Half-range frames and the log of the loudness: what `Fused` needs, without spectrograms."""

    def inputs(config, batch):
        # 1 and not 0, whose logarithm is no number.
        loudness = jax.numpy.log(jax.numpy.maximum(batch["audio"].max(1), 1).astype("float32"))
        return {"frames": batch["frames"].astype("float32") / 127.5 - 1, "audio": loudness}

    monkeypatch.setattr("aver_jax.evaluation.forward.evaluation_inputs", inputs)


CONFIG = ConfigDict(
    {
        "seed": 0,
        "data": {
            "path": "data", "protocol": "synthetic_fifths", "fold": 2, "target": "intended",
            "num_frames": FRAMES, "image_size": 8, "max_seconds": 1.0,
            "modalities": ("video", "audio"), "threads": 0,
        },
        "frontend": {},
        "evaluation": {"batch_size": 4, "views": 1},
    }
)  # fmt: skip


@pytest.fixture
def loaded(monkeypatch, dataset, front_end):
    run = SimpleNamespace(
        folder=Path("run"), model=Fused(), variables=_weights(mean=1.0), config=CONFIG,
        classes=CLASSES, preparation=dataset.preparation, dataset={}, step=7,
    )  # fmt: skip
    monkeypatch.setattr(job, "load_run", lambda folder, checkpoint: run)
    monkeypatch.setattr(job, "open_dataset", lambda path: dataset)
    # Compiled functions are kept for equal front ends, and this one is a stand-in.
    monkeypatch.setattr(job, "compiled_forward", Forward)
    return run


def _wars(evaluation):
    rows = evaluation.results["controls"]["rows"]
    return {row["control"]: row["war"]["value"] for row in rows}


def test_a_model_of_the_mean_frame_is_not_moved_by_their_order(loaded):
    wars = _wars(job.evaluate_run("run", split="train", controls=True))
    assert wars["as is"] == wars["frames shuffled"] == wars["frames reversed"] == 1.0
    assert wars["silence"] == wars["sound of another clip"] == 1.0
    assert wars["face of another clip"] < 0.6


def test_a_model_of_the_sound_is_moved_by_the_sound_alone(loaded):
    loaded.variables = _weights(sound=1.0)
    evaluation = job.evaluate_run("run", split="train", controls=True)
    wars = _wars(evaluation)
    assert wars["frames shuffled"] == wars["face of another clip"] == wars["as is"] == 1.0
    assert wars["silence"] == pytest.approx(1 / 3)
    # Right exactly where the other clip happens to have the same label.
    labels = evaluation.labels
    others = controls.derangement(len(labels))
    assert wars["sound of another clip"] == pytest.approx((labels[others] == labels).mean())


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("views", [1, 3])
def test_predictions_under_a_control_are_in_the_order_of_the_rows(
    dataset, front_end, devices, views
):
    rows, mesh = np.arange(3, 24)[::-1], make_mesh(devices)
    forward, loader = Forward(Fused(), CONFIG, mesh), evaluation_loader(CONFIG, mesh)
    evaluator = Evaluator(forward, loader, dataset, rows, LABELS, "test", views, keep=True)
    variables, others = _weights(sound=1.0), controls.derangement(len(rows))
    control = _control("sound of another clip", loader.shape)
    for _ in range(2):
        as_is = evaluator.collect(variables)
        swapped = evaluator.collect(variables, change=control.batches)
        np.testing.assert_array_equal(as_is.rows, rows)
        np.testing.assert_array_equal(swapped.rows, rows)
        np.testing.assert_array_equal(swapped.logits, as_is.logits[others])
        np.testing.assert_array_equal(as_is.logits.argmax(1), LABELS[rows])


def test_permuted_labels_keep_each_actors_labels_and_give_chance():
    rng = np.random.default_rng(0)
    labels, actors = np.tile(np.arange(6), 40), np.repeat(np.arange(24), 10)
    predictions = np.where(rng.random(240) < 0.7, labels, rng.integers(0, 6, 240))
    counts = control_scores.permuted_confusions(predictions, labels, actors, 6, 300)
    np.testing.assert_array_equal(counts.sum(2), np.tile(np.bincount(labels), (300, 1)))
    np.testing.assert_array_equal(
        counts.sum(1), np.tile(np.bincount(predictions, minlength=6), (300, 1))
    )
    found = control_scores.score_controls(predictions, {}, labels, actors, 6, samples=50)
    permuted = found["rows"][-1]
    assert permuted["control"] == "labels permuted"
    assert found["includes_chance"]
    assert permuted["uar"]["low"] < 1 / 6 < permuted["uar"]["high"]
    assert permuted["war"]["value"] == pytest.approx(1 / 6, abs=0.02)
    assert permuted["minus_as_is"]["war"]["value"] == pytest.approx(
        permuted["war"]["value"] - found["rows"][0]["war"]["value"]
    )


def test_what_knowing_the_actor_gives_is_left_in_the_score_of_permuted_labels():
    """Two actors, each mostly of one class, and a model that recognises only who it sees."""
    actors = np.repeat([0, 1], 50)
    labels = np.where(np.arange(100) % 10 < 8, actors, 1 - actors)
    found = control_scores.score_controls(actors, {}, labels, actors, 2, samples=50)
    assert [row["war"]["value"] for row in found["rows"]] == pytest.approx([0.8, 0.8])
    assert not found["includes_chance"]
    assert "leaves out chance, a UAR of 50.0%: actors differ" in found["note"]


def test_a_model_of_one_class_is_at_chance():
    labels, actors = np.tile(np.arange(6), 4), np.repeat(np.arange(4), 6)
    found = control_scores.score_controls(0 * labels, {}, labels, actors, 6, samples=50)
    assert found["includes_chance"]


@pytest.mark.parametrize("actors", [np.full(60, ""), np.arange(60)])
def test_labels_are_permuted_over_all_clips_where_actors_do_not_help(actors):
    labels = np.arange(60) % 3
    counts = control_scores.permuted_confusions(labels, labels, actors, 3, 300)
    assert metrics.war(counts).mean() == pytest.approx(1 / 3, abs=0.03)


def test_a_control_that_changes_nothing_differs_by_nothing(loaded):
    rows = job.evaluate_run("run", split="train", controls=True).results["controls"]["rows"]
    by_name = {row["control"]: row for row in rows}
    assert by_name["as is"]["minus_as_is"] is None
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert by_name["frames reversed"]["minus_as_is"] == {"war": zero, "uar": zero}
    face = by_name["face of another clip"]["minus_as_is"]["war"]
    assert face["low"] <= face["value"] <= face["high"] < 0


def test_controls_are_in_the_files_the_table_and_the_report(loaded, tmp_path):
    evaluation = job.evaluate_run("run", controls=True)
    job.write_evaluation(evaluation, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    table = list(csv.DictReader((tmp_path / "controls.csv").read_text().splitlines()))
    names = [row["control"] for row in results["controls"]["rows"]]
    assert names == ["as is", *_names(), "labels permuted"]
    assert [row["control"] for row in table] == names
    assert float(table[-2]["war_minus_as_is"]) == pytest.approx(
        results["controls"]["rows"][-2]["minus_as_is"]["war"]["value"], rel=1e-5
    )
    text = control_scores.controls_table(results)
    section = sections.controls(results)
    for name in names:
        assert name in text
        assert name in str(section.blocks)
    assert results["controls"]["note"] in text
    assert sections.controls(evaluation.results | {"controls": None}).blocks == []
    job.write_evaluation(job.evaluate_run("run"), tmp_path)
    assert not (tmp_path / "controls.csv").exists()


def test_a_split_of_one_clip_is_refused_before_the_work(loaded, monkeypatch):
    dealt = job.split_dataset(job.open_dataset(""), "synthetic_fifths", 2, "intended")
    object.__setattr__(dealt, "test", dealt.test[:1])
    monkeypatch.setattr(job, "split_dataset", lambda *_: dealt)
    monkeypatch.setattr(job, "make_mesh", lambda: pytest.fail("the work was begun"))
    with pytest.raises(UserError, match="--controls needs at least 2 clips"):
        job.evaluate_run("run", controls=True)
