"""Occlusion and faithfulness of a run: what they leave, going on after a stop, bad requests."""

import csv

import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.experiments.relevance import faithfulness, occlusion, run_flags
from aver_jax.explanation import masking, tested
from aver_jax.input import open_dataset, split


@pytest.fixture
def opened(monkeypatch, small_run, synthetic_dataset):
    """Replaces the run folder by a small run of random weights."""
    dataset = open_dataset(synthetic_dataset)
    parts = split(dataset, "synthetic_fifths", 1)
    labels, test_rows = parts.labels, parts.test

    def open_tested(folder, checkpoint, data, clips):
        rows = test_rows[:clips]
        return tested.Tested(
            small_run, dataset, rows, labels[rows], len(test_rows), "synthetic_fifths", 1
        )

    for module in (occlusion, faithfulness):
        monkeypatch.setattr(module, "open_tested", open_tested)


def test_cells_cross_patches_with_frames_most_first_then_least():
    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2)
    masks = occlusion.cell_masks(maps, (0.0, 0.25), (0, 1, 2))
    assert masks.shape == (1, 12, 4, 2, 2)
    # The most relevant quarter of the patches is the last frame, and so is the first frame taken.
    np.testing.assert_array_equal(masks[0].sum((1, 2, 3)), [0, 4, 8, 4, 4, 8] * 2)
    assert masks[0, 1, 3].all()
    assert masks[0, 7, 0].all()


def test_the_flags_name_baselines_that_exist():
    assert tuple(run_flags.BASELINES.split(",")) == masking.BASELINES
    assert set(run_flags.FAITHFULNESS_BASELINES.split(",")) < set(masking.BASELINES)


@pytest.mark.slow
def test_occlusion_writes_a_page_and_goes_on_where_it_stopped(opened, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = ["experiments", "occlusion", "RUN", "--out", str(out), "--methods", "tibav"]
    words += ["--baselines", "black", "--clips", "4", "--batch-size", "4"]
    assert main(words) == 0
    text = (out / "page.md").read_text()
    assert "aver experiments occlusion RUN --out OUT" in text
    assert (out / "page" / "difference_black.png").stat().st_size > 1000
    with (out / "page" / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    # Three methods, two orders and their difference; the model has 4 frames, so 0 to 3 of them.
    assert len(cells) == 3 * 3 * 6 * 4
    whole = {c["accuracy"] for c in cells if (c["patches"], c["frames"]) == ("0", "0")}
    assert len(whole - {"0"}) <= 1

    # What is finished is not done again: one part is missing, and one method is explained.
    (out / "parts" / "random_black.csv").unlink()
    explained = []
    plain = occlusion.maps_of
    monkeypatch.setattr(
        occlusion,
        "maps_of",
        lambda *args, **words: explained.append(args[3]) or plain(*args, **words),
    )
    assert main(words) == 0
    assert explained == ["random"]
    with (out / "page" / "cells.csv").open() as file:
        assert list(csv.DictReader(file)) == cells


@pytest.mark.slow
def test_faithfulness_ranks_methods_and_controls_with_their_time(opened, tmp_path):
    out = tmp_path / "out"
    words = ["experiments", "faithfulness", "RUN", "--out", str(out), "--methods", "tibav"]
    assert main([*words, "--clips", "6", "--batch-size", "4"]) == 0
    with (out / "page" / "measures.csv").open() as file:
        found = {(r["method"], r["measure"]): float(r["value"]) for r in csv.DictReader(file)}
    methods = {method for method, _ in found}
    assert methods == {"tibav", "random", "centre", "time_shuffled:tibav"}
    ranks = [found[m, "mean rank"] for m in methods]
    assert sum(ranks) == pytest.approx(1 + 2 + 3 + 4)
    assert found["tibav", "ms a clip"] > 0
    assert found["tibav", "max-sensitivity"] > 0
    # Shuffled frames hold the same values.
    assert found["tibav", "Gini"] == found["time_shuffled:tibav", "Gini"]
    assert ("random", "max-sensitivity") not in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["occlusion", "--methods", "magic"], "--methods has magic; this timesformer"),
        (["occlusion", "--baselines", "white"], "--baselines has white; choose from black"),
        (["faithfulness", "--baselines", "blur"], "give at least two of black, mean, blur"),
        (["occlusion", "--config.epochs=1"], "does not know --config.epochs=1"),
    ],
)
def test_a_bad_request_is_one_clear_line(opened, tmp_path, capsys, words, message):
    name, *rest = words
    assert main(["experiments", name, "RUN", "--out", str(tmp_path / "out"), *rest]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_results_of_other_settings_are_not_mixed(opened, tmp_path, capsys):
    from aver_jax.experiments.relevance.parts import Parts

    Parts(tmp_path / "out", {"target": "label", "clips": [1]})
    words = ["experiments", "occlusion", "RUN", "--out", str(tmp_path / "out")]
    assert main([*words, "--methods", "tibav", "--clips", "2"]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    words = ["experiments", "occlusion", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "is not a run folder" in capsys.readouterr().err
