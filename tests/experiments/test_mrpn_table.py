"""The job from its words to its page; the trainings are made up."""

import csv
import json

import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.experiments import grid as grids
from aver_jax.experiments import published
from aver_jax.experiments.page import Page, percent, points_span, printed, span
from aver_jax.input import open_dataset


def table(text: str, caption: str) -> list[list[str]]:
    """The cells of the table whose caption begins so."""
    lines = text.split(f"**{caption}", 1)[1].split("\n\n")[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def words(study_words, tmp_path) -> list[str]:
    return ["experiments", "mrpn_table", *study_words, "--workdir", str(tmp_path / "study")]


def test_the_page_has_the_tables_of_the_thesis_and_is_written_where_asked(
    trained, words, tmp_path, capsys
):
    target = tmp_path / "docs" / "mrpn_synthetic.md"
    more = ["--folds", "1,3", "--seeds", "0,1", "--page", str(target)]
    assert main([*words, *more]) == 0
    assert len(trained) == 6 * 2 * 2
    text = target.read_text()
    here = (tmp_path / "study" / "page.md").read_text()
    assert here == text.replace("mrpn_synthetic/", "page/")
    assert "- protocol: synthetic_fifths, folds 1, 3 of 5" in text
    assert "30 clips of 5 actors" in text
    assert "12 clips of 2 actors, intended labels" in text
    assert "aver experiments mrpn_table --config mrpn.py:size=study,dataset=synthetic" in text
    for name in ("confusion.png", "features.png", "cells.csv"):
        assert (target.with_suffix("") / name).stat().st_size > 500
        assert f"(mrpn_synthetic/{name})" in text

    scores = table(text, "WAR by network and fold")
    assert scores[0] == ["network", "fold 1", "fold 3", "mean ± SD"]
    assert [line[0] for line in scores[2:]] == list(grids.NETWORKS.values())
    # Half of 6 test clips, in each fold and seed.
    assert scores[3] == ["video", "50.0%", "50.0%", "50.0 ± 0.0%"]
    differences = {line[0]: line[1:] for line in table(text, "WAR differences")[2:]}
    assert differences["N2 - N0"][0] == "+16.7"
    assert differences["N2 - best single (video)"][0] == "+33.3"
    assert differences["N2 - N1"][-1] in ("yes", "undecided")
    opinions = {line[0]: line[1:] for line in table(text, "WAR of the branches")[2:]}
    assert opinions["audio, trained alone"] == ["-", "33.3%"]
    assert opinions["N1"] == ["66.7%", "66.7%"]
    assert "N0" not in opinions
    assert "an interval over so few is too narrow" in text
    assert len(table(text, "Networks and aggregators")) == 2 + 6
    # Numbers of other data stand apart and say so.
    assert "with which those on synthetic cannot be compared" in text
    assert "Temporal augmentation" not in text
    with (target.with_suffix("") / "cells.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 24
    assert "page: " in capsys.readouterr().out


def test_whole_clips_are_a_variant_of_three_networks(trained, words, tmp_path):
    more = ["--folds", "1", "--time-augmentation", "both", "--aggregators", "lstm,bilstm"]
    assert main([*words, *more, "--networks", "audio,video,n0,n1"]) == 0
    whole = [folder for folder in trained if "_nt_" in folder.name]
    assert [f.name for f in whole] == [f"{n}_lstm_nt_fold1_seed0" for n in ("audio", "video", "n0")]
    for folder in whole:
        assert json.loads((folder / "config.json").read_text())["data"]["min_slice"] == 1.0
    # A network's trainings follow one another, whatever their variant.
    networks = [folder.name.partition("_")[0] for folder in trained]
    assert networks == sorted(networks, key=networks.index)
    text = (tmp_path / "study" / "page.md").read_text()
    rows = [line[0] for line in table(text, "WAR without and with")[2:]]
    assert rows == ["AM (NT)", "AM (T)", "VM (NT)", "VM (T)", "JM (N0) (NT)", "JM (N0) (T)"]
    summary = [line[0] for line in table(text, "Networks and aggregators")[2:]]
    assert "N1, bidirectional LSTM" in summary
    rows = {line[0]: line[1] for line in table(text, "WAR differences of aggregators")[2:]}
    assert rows["N0: bidirectional LSTM - LSTM"] == "+0.0"


def test_the_page_is_made_again_without_training(trained, words, tmp_path):
    more = ["--folds", "2", "--networks", "video,n0"]
    assert main([*words, *more]) == 0
    (tmp_path / "study" / "page.md").unlink()
    assert main([*words, *more]) == 0
    assert len(trained) == 2
    assert (tmp_path / "study" / "page.md").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config", "mrpn.py:fold=1"], "sets fold, which the study sets itself"),
        (["--folds", "9"], "--folds is '9'; expected all, or some of 1 to 5"),
        (["--networks", "late"], "late fusion is built from the runs of video and audio"),
        (["--config.seed=1"], "the study sets seed itself"),
        (["--config.data.path="], "no dataset given"),
        (["--config.data.protocol=mine"], "expected one of crema_d_folds"),
        (["--aggregators", "gru"], "aggregator is 'gru'"),
        (["--workers", "99"], "--workers is 99; expected 1 to"),
        (["--time-augmentation", "both", "--config.data.min_slice=1.0"], "it must be less"),
    ],
)
def test_what_cannot_be_run_is_one_line(trained, words, more, message, capsys):
    assert main([*words, *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not trained


def test_a_page_that_is_no_markdown_file_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--page", "results"])
    assert "expected a file that ends with .md" in capsys.readouterr().err


def test_people_and_papers_stand_beside_numbers_of_the_same_dataset(synthetic_dataset):
    dataset = open_dataset(synthetic_dataset)
    votes = np.where(np.arange(30) < 15, dataset.index["label"], "ANG:DIS")
    index = {**dataset.index, "voice_vote": votes}
    crema_d = type(dataset)(
        dataset.path, "crema_d", dataset.classes, dataset.preparation, index, dataset.source
    )
    lines = {}
    for target in ("intended", "voice"):
        page = Page("x")
        published.add_published(page, [], crema_d, target, np.arange(30))
        lines[target] = {row[0]: row[1] for row in table("\n\n".join(page._parts), "Accuracies")}
    assert lines["intended"]["one human rater, video"] == "58.2%"
    assert lines["intended"]["majority of human raters, audio"] == "50.0%"
    assert lines["intended"]["thesis: N2 (MRPN), ResNet-18 + LSTM"] == "80.59%"
    assert lines["intended"]["HiCMAE-B"] == "84.9%"
    # Against what people perceived, their own votes say nothing.
    assert "majority of human raters, audio" not in lines["voice"]


def test_numbers_as_text():
    assert percent(0.8125) == "81.2%"
    assert percent(None) == percent(float("nan")) == "-"
    assert printed(0.8315) == "83.15%"
    assert span(0.79, 0.835) == "[79.0, 83.5]"
    assert span(float("nan"), 0.8) == "-"
    assert points_span(-0.003, 0.041) == "[-0.3, +4.1]"


def test_a_row_of_another_length_than_its_head_is_an_error():
    with pytest.raises(ValueError, match="2 cells under 3 columns"):
        Page("x").table("caption", ["a", "b", "c"], [["1", "2"]])
