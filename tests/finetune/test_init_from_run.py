"""Starting from earlier runs: what is taken, what stays fresh, and what does not fit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from aver_jax.config import base_config
from aver_jax.errors import UserError
from aver_jax.finetune.init_from_run import initialize_from, leaves, merge
from aver_jax.models import build_model, init_variables
from aver_jax.models.timesformer.resize import resized_pos_embed, resized_time_embed
from aver_jax.runs.run_folder import METADATA, write_run

BRANCH = {"stage_sizes": (1,), "width": 4, "stem": "conv3", "features": 4, "scoring_hidden": 6}
FUSION = {"name": "mrpn", "network": "late", **BRANCH}
SIZE = {
    "name": "timesformer",
    "image_size": 16,
    "num_frames": 2,
    "patch_size": 8,
    "width": 8,
    "depth": 1,
    "num_heads": 2,
}
CLASSES = ("ANG", "HAP", "SAD")


def tree(value: float, classes: int = 3, width: int = 4) -> dict:
    return {
        "blocks": {"kernel": jnp.full((width, width), value)},
        "head": {"kernel": jnp.full((width, classes), value), "bias": jnp.full(classes, value)},
    }


def variables_of(seed: int, classes: tuple[str, ...] = CLASSES, **fields) -> dict:
    """Random variables of a tiny model, by default a TimeSformer, no two alike."""
    model = build_model(fields if "name" in fields else {**SIZE, **fields}, len(classes))
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)


def write(folder: Path, variables: dict, classes: tuple[str, ...] = CLASSES, **fields) -> Path:
    config = base_config()
    config.model = ConfigDict(fields if "name" in fields else {**SIZE, **fields})
    metadata = {name: {} for name in METADATA}
    metadata.update(classes=list(classes), protocol="", modalities=["frames"])
    write_run(folder, config, metadata, variables)
    return folder


@pytest.fixture(scope="module")
def trained():
    return variables_of(seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, trained) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "trained", trained)


@pytest.fixture
def fresh():
    return variables_of(seed=2)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_of_the_same_classes_gives_everything():
    merged, left = merge(tree(0.0), tree(1.0), same_classes=True)
    assert_same(merged, tree(1.0))
    assert left == []


@pytest.mark.parametrize("classes", [3, 5], ids=["of the same number", "of another number"])
def test_other_classes_leave_the_head_fresh_and_say_so(classes):
    merged, left = merge(tree(0.0), tree(1.0, classes), same_classes=False)
    assert_same(merged["blocks"], tree(1.0)["blocks"])
    assert_same(merged["head"], tree(0.0)["head"])
    assert sorted(left) == ["head/bias", "head/kernel"]


def test_a_run_without_a_head_leaves_it_fresh():
    headless = {"blocks": tree(1.0)["blocks"]}
    merged, left = merge(tree(0.0), headless, same_classes=True)
    assert_same(merged, {**headless, "head": tree(0.0)["head"]})
    assert sorted(left) == ["head/bias", "head/kernel"]


def test_parameters_keep_the_type_of_the_model():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree(1.0))
    merged, _ = merge(tree(0.0), half, same_classes=True)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(merged))


def test_a_missing_parameter_is_named():
    other = {"head": tree(1.0)["head"]}
    with pytest.raises(UserError, match=r"^blocks/kernel is missing$"):
        merge(tree(0.0), other, same_classes=True)


def test_an_unknown_parameter_is_named():
    other = {**tree(1.0), "norm": {"scale": jnp.ones(4)}}
    with pytest.raises(UserError, match=r"^norm/scale is not in this model$"):
        merge(tree(0.0), other, same_classes=True)


def test_a_parameter_of_another_shape_is_named_with_both():
    with pytest.raises(UserError, match=r"^blocks/kernel is \(6, 6\), this model has \(4, 4\)$"):
        merge(tree(0.0), tree(1.0, width=6), same_classes=True)


def test_of_many_misfits_three_are_named_and_the_rest_counted():
    other = {**tree(1.0), "more": {name: jnp.ones(1) for name in "abcde"}}
    with pytest.raises(UserError, match=r"more/a is not.*more/b.*more/c.* and 2 more$"):
        merge(tree(0.0), other, same_classes=True)


def test_a_whole_model_is_taken_from_a_run(run, trained, fresh):
    merged, report = initialize_from(fresh, {"model": str(run)}, CLASSES)
    assert_same(merged, trained)
    assert report == [f"model from {run} (step 0)"]


def test_a_model_of_other_classes_keeps_its_own_head(run, trained):
    classes = ("HAP", "ANG", "NEU", "SAD")
    fresh = variables_of(2, classes)
    merged, (line,) = initialize_from(fresh, {"model": str(run)}, classes)
    assert_same(merged["params"]["blocks"], trained["params"]["blocks"])
    assert_same(merged["params"]["head"], fresh["params"]["head"])
    assert line.startswith(f"model from {run} (step 0); initialised anew: head/")


def test_classes_in_another_order_keep_the_fresh_head(run, fresh):
    merged, (line,) = initialize_from(fresh, {"model": str(run)}, CLASSES[::-1])
    assert_same(merged["params"]["head"], fresh["params"]["head"])
    assert "initialised anew" in line


@pytest.mark.parametrize("subtree", ["blocks", "blocks/attn"])
def test_a_subtree_is_taken_from_its_place_in_the_run_and_the_rest_stays(
    subtree, run, trained, fresh
):
    merged, report = initialize_from(fresh, {subtree: str(run)}, CLASSES)

    def taken(path: tuple) -> bool:
        return jax.tree_util.keystr(path, simple=True, separator="/").startswith(
            f"params/{subtree}/"
        )

    expected = jax.tree_util.tree_map_with_path(
        lambda path, old, new: old if taken(path) else new, trained, fresh
    )
    assert_same(merged, expected)
    assert report == [f"{subtree} from {run} (step 0)"]


def test_an_empty_folder_name_is_passed_over(fresh):
    merged, report = initialize_from(fresh, {"model": ""}, CLASSES)
    assert merged is fresh
    assert report == []


def test_an_unknown_subtree_is_named_with_those_there_are(run, fresh):
    with pytest.raises(UserError, match=rf"config.init.video={run}.*'video'.*blocks, cls_token"):
        initialize_from(fresh, {"video": str(run)}, CLASSES)


def test_a_run_of_a_wider_model_is_refused_by_name(run):
    wider = variables_of(2, width=16)
    with pytest.raises(UserError, match=rf"config.init.model={run}: blocks/\S+ is \(1, 8"):
        initialize_from(wider, {"model": str(run)}, CLASSES)


def test_a_folder_that_is_no_run_is_named(tmp_path, fresh):
    with pytest.raises(UserError, match="nowhere is not a run folder"):
        initialize_from(fresh, {"model": str(tmp_path / "nowhere")}, CLASSES)


def test_a_head_of_other_classes_is_not_taken_by_its_own_name_either():
    trained, fresh = tree(1.0)["head"], tree(0.0)["head"]
    merged, left = merge(fresh, trained, same_classes=False, inside="head")
    assert sorted(left) == sorted(fresh)
    assert all((merged[name] == fresh[name]).all() for name in fresh)


@pytest.fixture(scope="module")
def branch_runs(tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """A run of each modality alone, and its variables."""
    runs = {}
    for seed, modality in enumerate(("video", "audio"), start=10):
        fields = {"name": "resnet_lstm", "modality": modality, **BRANCH}
        variables = variables_of(seed, **fields)
        folder = write(tmp_path_factory.mktemp("runs") / modality, variables, **fields)
        runs[modality] = folder, variables
    return runs


def test_a_fusion_takes_branches_with_their_statistics_from_runs_of_one_modality(branch_runs):
    fresh = variables_of(1, **FUSION)
    init = {
        subtree: str(branch_runs[subtree.split("_")[0]][0])
        for subtree in ("video", "audio", "video_scoring", "audio_scoring")
    }
    merged, report = initialize_from(fresh, init, CLASSES)
    assert len(report) == 4
    for collection in ("params", "batch_stats"):
        for subtree in init:
            _, trained = branch_runs[subtree.split("_")[0]]
            assert_same(merged[collection][subtree], trained[collection][subtree])
        assert_same(merged[collection]["fusion"], fresh[collection]["fusion"])
    assert set(merged["batch_stats"]["video"]) == {"cnn", "norm"}


def test_scoring_of_other_classes_keeps_its_head_alone_fresh(branch_runs):
    folder, trained = branch_runs["video"]
    classes = ("HAP", "ANG", "NEU", "SAD")
    fresh = variables_of(1, classes, **FUSION)
    merged, (line,) = initialize_from(fresh, {"video_scoring": str(folder)}, classes)
    scoring = merged["params"]["video_scoring"]
    assert_same(scoring["dense"], trained["params"]["video_scoring"]["dense"])
    assert_same(scoring["head"], fresh["params"]["video_scoring"]["head"])
    assert_same(merged["batch_stats"]["video_scoring"], trained["batch_stats"]["video_scoring"])
    assert "initialised anew: video_scoring/head/" in line


def test_a_part_comes_from_its_own_run_whatever_the_order(branch_runs, tmp_path):
    whole, part = variables_of(3, **FUSION), variables_of(4, **FUSION)
    init = {
        # As sorted by name, the whole would come after "audio".
        "audio/cnn": str(write(tmp_path / "part", part, **FUSION)),
        "audio": str(branch_runs["audio"][0]),
        "model": str(write(tmp_path / "whole", whole, **FUSION)),
    }
    merged, report = initialize_from(variables_of(5, **FUSION), init, CLASSES)
    for collection in ("params", "batch_stats"):
        found, audio = merged[collection], branch_runs["audio"][1][collection]["audio"]
        assert_same(found["video"], whole[collection]["video"])
        assert_same(found["audio"], {**audio, "cnn": part[collection]["audio"]["cnn"]})
    assert [line.split()[0] for line in report] == ["model", "audio", "audio/cnn"]


def test_a_part_of_statistics_alone_can_be_named(branch_runs):
    folder, trained = branch_runs["video"]
    fresh = variables_of(1, **FUSION)
    merged, _ = initialize_from(fresh, {"video/norm": str(folder)}, CLASSES)
    assert_same(merged["batch_stats"]["video"]["norm"], trained["batch_stats"]["video"]["norm"])
    assert_same(merged["batch_stats"]["video"]["cnn"], fresh["batch_stats"]["video"]["cnn"])
    assert_same(merged["params"], fresh["params"])


def test_a_run_of_the_other_modality_has_no_such_branch(branch_runs):
    folder, _ = branch_runs["video"]
    clue = rf"config.init.audio={folder}: the run has no 'audio' \(it has: video, video_scoring\)"
    with pytest.raises(UserError, match=clue):
        initialize_from(variables_of(1, **FUSION), {"audio": str(folder)}, CLASSES)


def leaves_of(variables: dict, *subtrees: str) -> frozenset[str]:
    return frozenset(
        f"params/{path}"
        for path in leaves(variables["params"])
        if any(f"{path}/".startswith(f"{subtree}/") for subtree in subtrees)
    )


def test_all_that_is_held_must_come_from_runs(branch_runs):
    fresh, video = variables_of(1, **FUSION), str(branch_runs["video"][0])
    frozen = leaves_of(fresh, "video")
    initialize_from(fresh, {"video": video}, CLASSES, frozen)
    clue = (
        r"^video/aggregator would be frozen at random values; give the run to take it from, "
        r"--config.init.video/aggregator=RUN, or leave it out of config.freeze$"
    )
    with pytest.raises(UserError, match=clue):
        initialize_from(fresh, {"video/cnn": video}, CLASSES, frozen)
    with pytest.raises(
        UserError, match=r"^audio, video would.*init.audio=RUN --config.init.video="
    ):
        initialize_from(fresh, {"video": ""}, CLASSES, frozen | leaves_of(fresh, "audio"))


def test_a_held_head_must_be_of_the_same_classes_whoever_gives_it(run, tmp_path, trained):
    classes = ("HAP", "ANG", "SAD")
    fresh = variables_of(2, classes)
    frozen = leaves_of(fresh, "head")
    clue = rf"^head would be.*config.init.model={run} has none for these classes; take a run of"
    with pytest.raises(UserError, match=clue):
        initialize_from(fresh, {"model": str(run)}, classes, frozen)
    other = write(tmp_path / "other", variables_of(3, classes), classes)
    merged, _ = initialize_from(fresh, {"model": str(run), "head": str(other)}, classes, frozen)
    assert_same(merged["params"]["blocks"], trained["params"]["blocks"])


def test_a_timesformer_starts_from_one_of_other_frames_and_sizes(trained, tmp_path):
    run = write(tmp_path / "old", trained)
    fresh = variables_of(seed=2, num_frames=4, image_size=32)
    merged, report = initialize_from(fresh, {"model": str(run)}, CLASSES)
    assert (
        "pos_embed resized from 5 to 17 (bicubic); time_embed resized from 2 to 4 (linear)"
        in (report[0])
    )
    old, new = trained["params"], merged["params"]
    np.testing.assert_allclose(new["pos_embed"], resized_pos_embed(old["pos_embed"], 4))
    np.testing.assert_allclose(new["time_embed"], resized_time_embed(old["time_embed"], 4))
    assert_same(new["blocks"], old["blocks"])
    same, report = initialize_from(variables_of(seed=2), {"model": str(run)}, CLASSES)
    assert "resized" not in report[0]
    assert_same(same["params"]["pos_embed"], old["pos_embed"])
