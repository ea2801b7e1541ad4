"""Runs that a new one may not start from: those that know its test clips, or other inputs."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from aver_jax.config import base_config
from aver_jax.errors import UserError
from aver_jax.finetune.lineage import check_parent_runs
from aver_jax.input import open_dataset, split
from aver_jax.runs.run_folder import write_config

PARAMS = {name: {"kernel": 0} for name in ("video", "audio", "video_scoring", "fusion")}
HELD = frozenset(f"params/{name}/kernel" for name in PARAMS if name != "fusion")


@pytest.fixture(scope="module")
def dataset(synthetic_dataset):
    return open_dataset(synthetic_dataset)


def config_of(fold: int = 1, init: dict | None = None, **fields) -> ConfigDict:
    config = base_config()
    config.data.update(
        {"protocol": "synthetic_fifths", "fold": fold, "modalities": ("frames", "audio")}
    )
    config.init = ConfigDict({name: str(folder) for name, folder in (init or {}).items()})
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def write(folder: Path, dataset, config: ConfigDict, /, **metadata) -> Path:
    folder.mkdir()
    own = {
        "classes": list(dataset.classes),
        "protocol": config.data.protocol,
        "modalities": list(config.data.modalities),
        "preparation": dict(dataset.preparation),
        "dataset": {"name": dataset.name, "index_sha256": dataset.fingerprint},
    }
    write_config(folder, config, own | metadata)
    return folder


def check(config: ConfigDict, dataset, frozen=frozenset()) -> list[str]:
    data = config.data
    parts = split(dataset, data.protocol, data.fold, data.target)
    return check_parent_runs(config, dataset, parts, PARAMS, frozen)


def test_a_run_of_the_same_fold_is_a_start(dataset, tmp_path):
    run = write(tmp_path / "run", dataset, config_of())
    assert check(config_of(init={"video": run, "audio": ""}), dataset, HELD) == []


def test_a_run_that_knows_the_test_clips_is_refused_with_both_folds(dataset, tmp_path):
    run = write(tmp_path / "run", dataset, config_of(fold=2))
    clue = (
        rf"^config.init.video={run}: synthetic_fifths fold 2, target intended has seen \d+ of the "
        r"clips that synthetic_fifths fold 1, .*take a run of the same protocol, fold and target$"
    )
    with pytest.raises(UserError, match=clue):
        check(config_of(init={"video": run}), dataset)


def test_so_is_one_that_stems_from_such_a_run(dataset, tmp_path):
    first = write(tmp_path / "first", dataset, config_of(fold=2))
    second = write(tmp_path / "second", dataset, config_of(init={"model": first}))
    with pytest.raises(UserError, match=rf"init.video={second}, which started from {first}: .*2"):
        check(config_of(init={"video": second}), dataset)


def test_runs_that_started_from_each_other_do_not_hang(dataset, tmp_path):
    folder = tmp_path / "run"
    run = write(folder, dataset, config_of(init={"video": folder}))
    assert check(config_of(init={"video": run}), dataset) == []


def test_protocols_that_share_actors_are_compared_by_clips(dataset, tmp_path):
    run = write(tmp_path / "run", dataset, config_of(data__protocol="crema_d_random_90_5_5"))
    with pytest.raises(UserError, match=r"crema_d_random_90_5_5 fold 1, .* has seen"):
        check(config_of(init={"video": run}), dataset)


def test_what_cannot_be_compared_is_noted(dataset, tmp_path):
    gone = tmp_path / "gone"
    other = {"dataset": {"name": "ravdess", "index_sha256": "0"}}
    run = write(tmp_path / "run", dataset, config_of(fold=2, init={"model": gone}), **other)
    notes = check(config_of(init={"video": run, "video_scoring": run}), dataset)
    assert len(notes) == 2
    assert "another dataset (ravdess)" in notes[0]
    assert f"started from {gone}, which is gone" in notes[1]


def test_converted_weights_have_seen_nothing(dataset, tmp_path):
    run = write(tmp_path / "run", dataset, config_of(fold=2), dataset={}, preparation={})
    assert check(config_of(init={"video": run}, data__image_size=32), dataset, HELD) == []


@pytest.mark.parametrize(
    ("fields", "metadata", "clue"),
    [
        (
            {"frontend__normalization": "imagenet"},
            {},
            "frontend.normalization was imagenet, now per_clip",
        ),
        ({"data__image_size": 112}, {}, "data.image_size was 112, now 224"),
        ({"data__num_frames": 4}, {}, "data.num_frames was 4, now 8"),
        ({}, {"preparation": {"detector": "none"}}, "preparation.detector was none, now haar"),
    ],
)
def test_a_frozen_branch_must_see_the_frames_it_was_trained_on(
    fields, metadata, clue, dataset, tmp_path
):
    run = write(tmp_path / "run", dataset, config_of(**fields), **metadata)
    with pytest.raises(UserError, match=rf"^config.init.video={run}: video is frozen.*\(.*{clue}"):
        check(config_of(init={"video": run}), dataset, HELD)
    with pytest.raises(UserError, match=rf"^config.init.model={run}: video is frozen.*\(.*{clue}"):
        check(config_of(init={"model": run}), dataset, HELD)
    (note,) = check(config_of(init={"video": run}), dataset)
    assert note.startswith(f"note: {run}, from which video comes: ")
    assert clue in note
    # The voice does not see them.
    assert check(config_of(init={"audio": run}), dataset, HELD) == []


def test_a_frozen_branch_must_hear_the_spectrogram_it_was_trained_on(dataset, tmp_path):
    run = write(tmp_path / "run", dataset, config_of(frontend__spectrogram__bands=40))
    with pytest.raises(UserError, match=r"audio is frozen.*spectrogram.bands was 40, now 0"):
        check(config_of(init={"audio": run}), dataset, HELD)
    assert check(config_of(init={"video": run}), dataset, HELD) == []


def test_a_frozen_branch_must_hear_the_level_it_was_trained_at(dataset, tmp_path):
    run = write(tmp_path / "run", dataset, config_of(frontend__level="rms"))
    with pytest.raises(UserError, match=r"audio is frozen.*\(frontend.level was rms, now off\)"):
        check(config_of(init={"audio": run}), dataset, HELD)
    (note,) = check(config_of(init={"audio": run}), dataset)
    assert "frontend.level was rms, now off" in note
    assert check(config_of(init={"video": run}), dataset, HELD) == []


def test_a_run_of_before_levels_was_trained_with_none(dataset, tmp_path):
    run = write(tmp_path / "run", dataset, config_of())
    stored = json.loads((run / "config.json").read_text())
    del stored["frontend"]["level"]
    (run / "config.json").write_text(json.dumps(stored))
    assert check(config_of(init={"audio": run}), dataset, HELD) == []
    with pytest.raises(UserError, match=r"frontend.level was off, now rms"):
        check(config_of(init={"audio": run}, frontend__level="rms"), dataset, HELD)
