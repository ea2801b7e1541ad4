"""The study of sound levels: what clips at another level are, and a real study, very small."""

import csv

import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.experiments.grid import sound_levels
from aver_jax.experiments.grid.sound_levels import LEVELS, at_level
from tests.experiments.test_mrpn_table import table
from tests.experiments.test_real_trainings import TINY


def test_samples_are_scaled_as_a_file_would_hold_them():
    audio = np.array([[10, -5, 32_767], [3, -32_768, 0]], np.int16)
    batch = {"audio": audio, "row": np.array([4, 9], np.int32), "label": np.array([1, 2])}
    quiet = at_level(batch, LEVELS["at 0.3"])
    np.testing.assert_array_equal(quiet["audio"], [[3, -2, 9830], [1, -9830, 0]])
    assert quiet["audio"].dtype == np.int16
    assert quiet["label"] is batch["label"]
    loud = at_level(batch, lambda row: 3.0)["audio"]
    np.testing.assert_array_equal(loud, [[30, -15, 32_767], [9, -32_768, 0]])


def test_drawn_levels_are_a_clips_own_and_spread_over_the_range():
    decibels = np.array([20 * np.log10(LEVELS["±10 dB"](row)) for row in range(300)])
    assert decibels[7] == 20 * np.log10(LEVELS["±10 dB"](7))
    assert np.abs(decibels).max() <= 10
    assert decibels.min() < -9
    assert decibels.max() > 9


@pytest.mark.slow
def test_a_small_study_trains_both_settings_and_tests_every_level(
    synthetic_dataset, tmp_path, monkeypatch
):
    config = ["--config", "mrpn.py:size=study", f"--config.data.path={synthetic_dataset}"]
    words = ["experiments", "level_study", *config, "--workdir", str(tmp_path / "study"), *TINY]
    words += ["--folds", "1,2", "--seeds", "0,1"]
    assert main(words) == 0
    assert len(list((tmp_path / "study" / "cells").glob("*/levels.npz"))) == 2 * 2 * 2 * 2
    text = (tmp_path / "study" / "page.md").read_text()
    scores = table(text, "WAR, mean")
    assert scores[0] == ["network, level", "as is", "at 0.3", "±10 dB"]
    names = [line[0] for line in scores[2:]]
    assert names == ["audio, off", "audio, rms", "N2 (MRPN), off", "N2 (MRPN), rms"]
    # Barely trained networks have ties, which rounding decides: only that there is a number.
    kept = {line[0]: line[1:] for line in table(text, "Clips with the prediction")[2:]}
    assert list(kept) == names
    assert all(cell.endswith("%") for line in kept.values() for cell in line)
    differences = [line[0] for line in table(text, "What one level")[2:]]
    assert "audio, at 0.3: rms - off" in differences
    assert "Primary comparison: rms - off, WAR on the audio branch, clips at ±10 dB" in text
    assert table(text, "Power of the differences")[2][4] == "2 x 2"
    with (tmp_path / "study" / "page" / "levels.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 16 * 3
    # Made again from what is stored.
    monkeypatch.setattr(sound_levels, "load_run", lambda folder: pytest.fail("tested again"))
    assert main(words) == 0
    assert (tmp_path / "study" / "page.md").read_text() == text


def test_the_level_is_the_studys_own(synthetic_dataset, tmp_path, capsys):
    words = ["experiments", "level_study", "--config", "mrpn.py:size=study"]
    words += ["--workdir", str(tmp_path), f"--config.data.path={synthetic_dataset}"]
    assert main([*words, "--config.frontend.level=rms"]) == 2
    assert "the study sets frontend.level itself" in capsys.readouterr().err
