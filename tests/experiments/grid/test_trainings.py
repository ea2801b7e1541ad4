"""The grid: which cells there are, in which order, what each trains, and what a stop costs."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from aver_jax.config import to_json
from aver_jax.errors import UserError
from aver_jax.experiments.grid import trainings
from aver_jax.experiments.grid.processes import deal
from aver_jax.experiments.grid.trainings import (
    Cell,
    Grid,
    cell_config,
    check_words,
    plan_cells,
    run_cells,
)
from aver_jax.experiments.stats.predictions import read_cell_results

SPEC = "mrpn.py:size=study,dataset=synthetic"
ALL = ("n2", "late", "audio", "video", "n0", "n1")


@pytest.fixture
def grid(tmp_path, synthetic_dataset) -> Grid:
    return Grid(SPEC, tmp_path / "study", (f"--config.data.path={synthetic_dataset}",))


def names(folders) -> list[str]:
    return [folder.name for folder in folders]


def test_a_network_is_trained_in_one_go_and_late_fusion_after_its_branches():
    cells = plan_cells(ALL, ["lstm", "bilstm"], [1, 2], [0, 1])
    assert len(cells) == len(set(cells)) == 6 * 2 * 2 * 2
    kinds = [(cell.network, cell.aggregator) for cell in cells]
    assert kinds == sorted(kinds, key=kinds.index)
    assert list(dict.fromkeys(cell.network for cell in cells)) == list(trainings.NETWORKS)


def test_late_fusion_starts_from_the_branches_of_its_own_fold_seed_and_aggregator(grid):
    config = cell_config(grid, Cell("late", "bilstm", 3, 7))
    folders = {branch: grid.folder(Cell(branch, "bilstm", 3, 7)) for branch in ("video", "audio")}
    assert {k: Path(v) for k, v in config.init.items()} == {
        "video": folders["video"],
        "video_scoring": folders["video"],
        "audio": folders["audio"],
        "audio_scoring": folders["audio"],
    }
    assert (config.data.fold, config.seed, config.model.aggregator) == (3, 7, "bilstm")
    assert list(config.freeze) == ["video", "video_scoring", "audio", "audio_scoring"]


def test_weights_to_start_from_go_to_the_networks_that_have_the_part(grid):
    words = ("--config.init.video/cnn=V", "--config.init.audio/cnn=A")
    started = Grid(grid.spec, grid.workdir, (*grid.overrides, *words))

    def of(network):
        init = cell_config(started, Cell(network, "lstm", 1, 0)).init
        return {subtree: folder for subtree, folder in init.items() if folder}

    assert of("video") == {"video/cnn": "V"}
    assert of("audio") == {"audio/cnn": "A"}
    assert of("n2") == {"video/cnn": "V", "audio/cnn": "A"}
    # Frozen branches are those that were trained, not what these began with.
    assert set(of("late")) == {"video", "audio", "video_scoring", "audio_scoring"}


@pytest.mark.parametrize(
    ("spec", "words", "message"),
    [
        ("mrpn.py:size=study,fold=2", [], "sets fold"),
        ("mrpn.py:network=n2", [], "sets network"),
        ("mrpn.py", ["--config.seed=3"], "sets seed itself"),
        ("mrpn.py", ["--config.data.fold=3"], "sets data.fold itself"),
        ("mrpn.py", ["--epochs=3"], "unknown argument '--epochs=3'"),
    ],
)
def test_what_the_grid_sets_is_refused_in_one_line(spec, words, message):
    with pytest.raises(UserError, match=message):
        check_words(spec, words)


def test_late_fusion_without_its_branches_is_refused():
    with pytest.raises(UserError, match="add audio to --networks"):
        plan_cells(["video", "late"], ["lstm"], [1], [0])
    with pytest.raises(UserError, match="unknown network 'n3'"):
        plan_cells(["n3"], ["lstm"], [1], [0])


def test_folds_that_a_protocol_lacks_are_refused():
    assert trainings.fold_numbers("all", "ravdess_pairs") == list(range(1, 13))
    assert trainings.fold_numbers("2,4", "synthetic_fifths") == [2, 4]
    for words in ("6", "0,1", "one", ""):
        with pytest.raises(UserError, match="expected all, or some of 1 to 5"):
            trainings.fold_numbers(words, "synthetic_fifths")


def test_a_stopped_study_keeps_finished_cells_and_goes_on_with_the_rest(grid, trained, monkeypatch):
    cells = plan_cells(["video", "n0"], ["lstm"], [1, 2], [0])
    train, lines = trainings.train, []

    def interrupted(config, folder, quiet, report):
        if len(trained) == 2:
            raise SystemExit(128 + signal.SIGTERM)
        train(config, folder, quiet=quiet, report=report)

    with monkeypatch.context() as patch:
        patch.setattr(trainings, "train", interrupted)
        with pytest.raises(SystemExit) as stop:
            run_cells(grid, cells, lines.append)
    assert stop.value.code == 128 + signal.SIGTERM
    assert names(trained) == ["video_lstm_fold1_seed0", "video_lstm_fold2_seed0"]
    run_cells(grid, cells, lines.append)
    assert names(trained[2:]) == ["n0_lstm_fold1_seed0", "n0_lstm_fold2_seed0"]
    run_cells(grid, cells, lines.append)
    assert len(trained) == 4
    assert len(lines) == 9  # two for each cell, and the one that was stopped began twice
    assert lines[0] == "[1/4] training video_lstm_fold1_seed0"
    assert lines[-2] == "[4/4] training n0_lstm_fold2_seed0; 1 cell left here, about 1 min"
    assert lines[-1].startswith("[4/4] n0_lstm_fold2_seed0: WAR 66.7%, ")


def test_a_cell_without_its_result_is_trained_on(grid, trained):
    # As if the process had died between the training and the result: train() then has nothing
    # to do and returns at once.
    cells = plan_cells(["video"], ["lstm"], [1], [0])
    run_cells(grid, cells, lambda line: None)
    (grid.folder(cells[0]) / "result.json").unlink()
    run_cells(grid, cells, lambda line: None)
    assert len(trained) == 2


def test_a_result_holds_every_test_clip_and_features_where_asked(grid, trained):
    cells = plan_cells(["n2"], ["lstm"], [1, 2], [0])
    run_cells(dataclasses.replace(grid, featured=(2, 0)), cells, lambda line: None)
    stored = [np.load(grid.folder(cell) / "test.npz") for cell in cells]
    assert {"row", "label", "actor", "clip_id", "logits", "logits_video"} <= set(stored[0].files)
    assert [("features" in file.files) for file in stored] == [False, True]
    result = json.loads((grid.folder(cells[0]) / "result.json").read_text())
    assert result["cell"] == {
        "network": "n2", "aggregator": "lstm", "fold": 1, "seed": 0, "variant": "",
    }  # fmt: skip
    assert result["results"]["clips"] == len(stored[0]["row"])


def test_a_cell_of_another_experiment_or_dataset_is_refused_before_any_training(
    grid, trained, tmp_path, monkeypatch
):
    cells = plan_cells(["video", "n0"], ["lstm"], [1], [0])
    run_cells(grid, cells[1:], lambda line: None)
    other = Grid(grid.spec, grid.workdir, (*grid.overrides, "--config.epochs=3.0"))
    with pytest.raises(UserError, match=r"n0_lstm_fold1_seed0 .*epochs was \d+\.0, now 3\.0"):
        run_cells(other, cells)
    # What does not change what a training computes may differ.
    quick = Grid(grid.spec, grid.workdir, (*grid.overrides, "--config.data.threads=3"))
    trainings.check_cells(quick, cells)
    monkeypatch.setattr(trainings, "_fingerprint", lambda path: "of other clips")
    with pytest.raises(UserError, match=r"dataset was .* now of other clips"):
        run_cells(grid, cells)
    assert len(trained) == 1


def test_a_damaged_result_is_named(grid, trained):
    cells = plan_cells(["video"], ["lstm"], [1], [0])
    run_cells(grid, cells, lambda line: None)
    (grid.folder(cells[0]) / "result.json").write_text('{"cell": ')
    with pytest.raises(UserError, match=r"result.json is damaged .* remove it"):
        run_cells(grid, cells)


def test_a_failed_cell_does_not_stop_the_others_and_is_tried_again_when_asked_differently(
    grid, trained, monkeypatch
):
    cells = plan_cells(["audio", "video", "late"], ["lstm"], [1], [0])
    train, lines, tried = trainings.train, [], []

    def diverging(config, folder, quiet, report):
        tried.append(folder.name)
        if folder.name.startswith("video") and config.epochs != 3.0:
            raise UserError("the loss is not finite")
        train(config, folder, quiet=quiet, report=report)

    monkeypatch.setattr(trainings, "train", diverging)
    run_cells(grid, cells, lines.append)
    assert tried == ["audio_lstm_fold1_seed0", "video_lstm_fold1_seed0"]
    assert "[2/3] video_lstm_fold1_seed0 failed: the loss is not finite" in lines
    reason = "it is built from video_lstm_fold1_seed0, which failed"
    assert lines[-1] == f"[3/3] late_lstm_fold1_seed0 failed: {reason}"
    results, failures = read_cell_results(grid, cells)
    assert [o.cell for o in results] == cells[:1]
    assert [f.reason for f in failures] == ["the loss is not finite", reason]
    # The same again: it would diverge again.
    run_cells(grid, cells, lines.append)
    assert tried[2:] == []
    with pytest.raises(UserError, match=r"all 1 trainings failed; video_lstm.* not finite"):
        read_cell_results(grid, cells[1:2])
    other = Grid(grid.spec, grid.workdir, (*grid.overrides, "--config.epochs=3.0"))
    run_cells(other, cells[1:2], lines.append)
    assert tried[2:] == ["video_lstm_fold1_seed0"]


def test_a_config_that_does_not_fit_one_of_the_networks_is_told_before_any_training(grid, trained):
    cells = plan_cells(["video", "n0"], ["lstm", "gru"], [1], [0])
    with pytest.raises(UserError, match="aggregator is 'gru'; expected one of lstm"):
        run_cells(grid, cells)
    assert not trained


def test_variants_of_a_cell_lie_apart_and_differ_in_their_words(grid):
    both = Grid(
        grid.spec,
        grid.workdir,
        grid.overrides,
        {"": (), "nt": ("--config.data.min_slice=1.0",)},
    )
    one, other = (Cell("n0", "lstm", 1, 0, variant) for variant in ("", "nt"))
    assert both.folder(one) != both.folder(other)
    assert cell_config(both, one).data.min_slice == 0.5
    assert cell_config(both, other).data.min_slice == 1.0
    assert to_json(cell_config(both, one)) == to_json(cell_config(grid, one))


def test_processes_share_the_cells_so_that_late_fusion_finds_its_branches():
    cells = plan_cells(ALL, ["lstm"], [1, 2, 3], [0])
    shares = deal(cells, 2)
    assert sorted(map(len, shares)) == [6, 12]
    assert sorted(shares[0] + shares[1], key=cells.index) == cells
    for share in shares:
        assert share == sorted(share, key=cells.index)
        for cell in share:
            if cell.network == "late":
                assert Cell("video", "lstm", cell.fold, cell.seed) in share
    assert deal(cells[:1], 2) == [cells[:1]]
