"""The job from its words to its page; the trainings are fake."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.experiments import study_flags
from aver_jax.experiments.grid import trainings
from aver_jax.experiments.pages import published, tables
from aver_jax.experiments.pages.page import Table, percent, points_span, printed, span
from aver_jax.experiments.pages.provenance import without_folders
from aver_jax.input import open_dataset
from aver_jax.models.resnet.sequence import AGGREGATORS


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
    assert [line[0] for line in scores[2:]] == list(trainings.NETWORKS.values())
    # Half of 6 test clips, in each fold and seed.
    assert scores[3] == ["video", "50.0%", "50.0%", "50.0 ± 0.0%"]
    differences = {line[0]: line[1:] for line in table(text, "WAR differences")[2:]}
    assert differences["N2 - N0"][0] == "+16.7"
    assert differences["N2 - best single (video)"][0] == "+33.3"
    # So few actors decide nothing, whatever their interval is.
    assert {tuple(line[-2:]) for line in differences.values()} == {("undecided", "undecided")}
    assert "Primary comparison: N2 - N0, WAR on all test clips" in text
    power = {line[0]: line[1:] for line in table(text, "Power of the differences")[2:]}
    assert power.keys() == differences.keys()
    assert power["N2 - N0"][3:5] == ["2 x 2", "-"]
    assert "the page has 14 verdicts, of which about 0.7 would be false" in text
    by_branch = {line[0]: line[1:] for line in table(text, "WAR of the branches")[2:]}
    assert by_branch["audio, trained alone"] == ["-", "33.3%"]
    assert by_branch["N1"] == ["66.7%", "66.7%"]
    assert "N0" not in by_branch
    assert "2 actors tested: an interval over so few is too narrow" in text
    assert "Few seeds" in text
    assert len(table(text, "Networks and aggregators")) == 2 + 6
    # Numbers of other data are in a table of their own and say so.
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
    # One seed does not tell what another would change.
    assert "## Power" not in text
    rows = [line[0] for line in table(text, "WAR without and with")[2:]]
    assert rows == ["AM (NT)", "AM (T)", "VM (NT)", "VM (T)", "JM (N0) (NT)", "JM (N0) (T)"]
    summary = [line[0] for line in table(text, "Networks and aggregators")[2:]]
    assert "N1, bidirectional LSTM" in summary
    rows = {line[0]: line[1] for line in table(text, "WAR differences of aggregators")[2:]}
    assert rows["N0: bidirectional LSTM - LSTM"].startswith("-")


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
        (["--networks", ""], "--networks is empty; give some of audio, video"),
        (["--aggregators", ""], "--aggregators is empty; give some of lstm"),
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


@pytest.fixture
def finished(trained, words, tmp_path):
    """(the words of a small study that has run, the folder of its one cell)."""
    more = [*words, "--networks", "video", "--folds", "1"]
    assert main(more) == 0
    return more, tmp_path / "study" / "cells" / "video_lstm_fold1_seed0"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["seconds"], "it lacks seconds"),
        (["results", "confusion"], "its results lack confusion"),
        (["results", "metrics", "uar"], "its results lack uar"),
        (["results", "metrics"], "its results lack war"),
    ],
)
def test_a_result_that_lacks_a_part_is_one_line(finished, path, message, capsys):
    more, folder = finished
    result = json.loads((folder / "result.json").read_text())
    part = result
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    (folder / "result.json").write_text(json.dumps(result))
    capsys.readouterr()
    assert main(more) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_result_that_is_no_result_is_one_line(finished, capsys):
    more, folder = finished
    for content in ("[]", '{"cell": ', "3"):
        (folder / "result.json").write_text(content)
        capsys.readouterr()
        assert main(more) == 2
        assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("cut", ["half", "empty", "arrays"])
def test_damaged_predictions_are_one_line(finished, cut, capsys):
    more, folder = finished
    file = folder / "test.npz"
    if cut == "arrays":
        np.savez(file, row=np.arange(3))
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if cut == "half" else b"")
    capsys.readouterr()
    assert main(more) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "test.npz cannot be read" in error


def test_a_result_of_before_its_making_was_stored_is_read(finished, tmp_path):
    more, folder = finished
    page = tmp_path / "study" / "page.md"
    assert "not stored" not in page.read_text()
    result = json.loads((folder / "result.json").read_text())
    assert result.pop("made").keys() == {"versions", "device", "date"}
    (folder / "result.json").write_text(json.dumps(result))
    assert main(more) == 0
    assert "- not stored: these three by 1 training; those above are of this page" in (
        page.read_text()
    )


def test_no_folder_of_this_machine_is_on_the_page(trained, words, synthetic_dataset, tmp_path):
    folder = str(tmp_path / "weights")
    more = ["--networks", "video", "--folds", "1", "--workers", "1", "--note", "30% are unclear."]
    assert main([*words, *more, f"--config.init.video/cnn={folder}"]) == 0
    text = (tmp_path / "study" / "page.md").read_text()
    for path in (tmp_path, tmp_path.parent, synthetic_dataset, Path.home(), tmp_path.resolve()):
        assert str(path) + "/" not in text
        assert str(path) not in text.split()
    assert "--workdir WORKDIR" in text
    assert "--config.data.path=DATA --config.init.video/cnn=RUN" in text
    assert "--workers" not in text
    assert "- start: from earlier runs: video/cnn of weights;" in text
    assert "- note: 30% are unclear." in text
    assert "best by validation/war" in text
    assert "30 clips of 5 actors prepared, 0 skipped" in text
    assert "- best trivial baseline: unknown, there is no audit of this dataset" in text


def test_folders_are_left_out_of_a_line():
    line = "/a/b c.json and ~/x/y.npz, or /tmp/study/cells/n0: 3/4 of it"
    assert without_folders(line) == "b c.json and y.npz, or n0: 3/4 of it"


def test_flags_name_every_network_and_aggregator():
    assert tuple(study_flags.NETWORKS.split(",")) == tuple(trainings.NETWORKS)
    assert tuple(study_flags.AGGREGATORS.split(",")) == tuple(tables.AGGREGATORS) == AGGREGATORS


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
        found = published.accuracies([], crema_d, target, np.arange(30))
        lines[target] = {row[0]: row[1] for row in found.rows}
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
        Table(["a", "b", "c"], [["1", "2"]])
