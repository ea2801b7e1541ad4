"""The study of unclear clips: its corpora, its page, and verdicts that the numbers carry."""

import csv
import json
import shutil

import numpy as np
import pytest

from aver_jax.cli import main
from aver_jax.errors import UserError
from aver_jax.evaluation.bootstrap import Interval
from aver_jax.experiments import corpora, fuzzy_study
from aver_jax.experiments.corpora import (
    Corpus,
    Rendering,
    clear_in_all,
    contents_of,
    make_corpus,
    plan_corpora,
)
from aver_jax.experiments.grid import trainings
from aver_jax.experiments.grid.trainings import Cell
from aver_jax.experiments.pages import verdict
from aver_jax.experiments.pages.fuzzy_study import among_clips, not_neutral
from aver_jax.experiments.stats.predictions import CellResult, Comparison
from aver_jax.input import open_dataset

RENDERING = Rendering(clips=12, actors=2, size=96, fps=6, seconds=1.0, crop=32, seed=0)


def found(value: float, low=None, high=None, tested: int = 12) -> Comparison:
    interval = Interval(*(value if end is None else end for end in (low, high)))
    return Comparison(value, interval, interval, {0: value, 1: value}, tested)


def test_there_is_a_corpus_for_every_share_and_one_clear_one_for_both_kinds():
    assert plan_corpora([0.0, 0.3, 0.125], [0.0, 0.6]) == [
        Corpus("clear"),
        Corpus("fuzzy30", fuzzy=0.3),
        Corpus("fuzzy12.5", fuzzy=0.125),
        Corpus("conflict60", conflict=0.6),
    ]
    assert plan_corpora([], []) == []
    knobs = Corpus("x", fuzzy=0.6).knobs
    assert (knobs.fuzzy_face, knobs.fuzzy_voice, knobs.conflict) == (0.3, 0.3, 0.0)


def test_corpora_differ_in_what_is_unclear_alone(tmp_path):
    clear = make_corpus(Corpus("clear"), RENDERING, tmp_path / "clear")
    fuzzy = make_corpus(Corpus("fuzzy60", fuzzy=0.6), RENDERING, tmp_path / "fuzzy")
    one, other = open_dataset(clear).index, open_dataset(fuzzy).index
    for column in ("clip_id", "actor", "label", "sentence"):
        assert one[column].tolist() == other[column].tolist()
    contents = {
        name: contents_of(data, "folder", [], "intended")
        for name, data in (("clear", clear), ("fuzzy60", fuzzy))
    }
    assert set(contents["clear"].condition.values()) == {"clear"}
    # Of each of the five labels but neutral, 0.3 of two clips twice: one and no more.
    unclear = {k for k, v in contents["fuzzy60"].condition.items() if v != "clear"}
    assert len(unclear) >= 5
    assert clear_in_all(contents) == contents["clear"].condition.keys() - unclear
    for held in contents.values():
        assert (held.prepared, held.skipped) == (12, 0)


def test_scores_along_a_share_are_of_the_same_clips():
    condition = {"a": "clear", "b": "fuzzy_face", "c": "clear", "d": "clear"}
    contents = corpora.Contents(4, 0, condition, {}, "")
    other = corpora.Contents(4, 0, {**condition, "b": "clear", "c": "conflict"}, {}, "")
    assert clear_in_all({"one": contents, "other": other}) == {"a", "d"}
    numbers = np.arange(4)
    result = CellResult(
        cell=Cell("n0", "lstm", 1, 0, "one"),
        classes=("ANG", "NEU"),
        rows=numbers,
        labels=np.array([0, 0, 0, 1]),
        predictions=numbers % 2,
        actors=np.array(list("wxyz")),
        clip_ids=np.array(list("abcd")),
        evaluation={},
        seconds=1.0,
        config={},
        branches={},
        features=None,
    )
    assert among_clips(result, frozenset("ad")).clip_ids.tolist() == ["a", "d"]
    # The neutral clip, d, is in neither.
    assert not_neutral(result, contents, clear=True).clip_ids.tolist() == ["a", "c"]
    assert not_neutral(result, contents, clear=False).clip_ids.tolist() == ["b"]


def test_a_corpus_is_made_once_and_never_of_other_settings(tmp_path, monkeypatch):
    folder = tmp_path / "clear"
    data = make_corpus(Corpus("clear"), RENDERING, folder)
    monkeypatch.setattr(corpora, "run_job", lambda *words: pytest.fail("prepared again"))
    assert make_corpus(Corpus("clear"), RENDERING, folder) == data
    with pytest.raises(UserError, match="holds a corpus of other settings"):
        make_corpus(Corpus("clear", fuzzy=0.5), RENDERING, folder)
    # Nor of another variation: folders of before it was recorded hold plainer clips.
    stamp = folder / "settings.json"
    settings = stamp.read_text()
    stamp.write_text(json.dumps({k: v for k, v in json.loads(settings).items() if k != "vary"}))
    with pytest.raises(UserError, match="holds a corpus of other settings"):
        make_corpus(Corpus("clear"), RENDERING, folder)
    stamp.write_text(settings)
    # A stop between rendering and preparing leaves the media, which are kept.
    shutil.rmtree(data)
    prepared = []
    monkeypatch.setattr(corpora, "run_job", lambda job, words: prepared.append(words) or 0)
    make_corpus(Corpus("clear"), RENDERING, folder)
    assert len(prepared) == 1


@pytest.fixture
def copied_corpora(monkeypatch, synthetic_dataset):
    """Instead of rendering: the small dataset, every other of whose clips is said to be unclear."""

    def make(corpus, rendering, folder):
        data = folder / "data"
        if not data.exists():
            shutil.copytree(synthetic_dataset, data)
            table = data / "truth.csv"
            with table.open(newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows[:: 2 if corpus.name != "clear" else 10_000][1:]:
                row["condition"] = "fuzzy_face" if corpus.fuzzy else "conflict"
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        return data

    monkeypatch.setattr(fuzzy_study, "make_corpus", make)


@pytest.fixture
def unaudited(monkeypatch):
    monkeypatch.setattr(fuzzy_study, "audit_corpus", lambda *words: None)


def words(tmp_path, *more: str) -> list[str]:
    config = ["--config", "mrpn.py:size=study", "--workdir", str(tmp_path / "study")]
    return ["experiments", "fuzzy_study", *config, *more]


def test_the_page_has_curves_differences_and_a_verdict(trained, copied_corpora, tmp_path):
    more = ["--shares", "0,0.3", "--conflicts", "0.6", "--seeds", "0,1", "--folds", "1,2"]
    assert main(words(tmp_path, *more)) == 0
    assert len(trained) == 6 * 3 * 2 * 2
    # All corpora of a network before the next network: it compiles once.
    networks = [folder.name.partition("_")[0] for folder in trained]
    assert networks == sorted(networks, key=networks.index)
    text = (tmp_path / "study" / "page.md").read_text()
    assert (tmp_path / "study" / "page" / "shares.png").stat().st_size > 5000
    # 7 differences of 3 corpora, 6 claims of them on other clips, one of all; two verdicts each.
    assert "the page has 80 verdicts, of which about 4.0 would be false" in text
    assert "unclear clips: clear 0, fuzzy30 14, conflict60 14" in text
    assert "Along the share of fuzzy clips: N1 > N0 is undecided at every share." in text
    assert (
        "Primary comparison: N2 - N0, WAR on all test clips of clear, fuzzy30 and conflict60"
        in text
    )
    assert "prepared clips: clear 30 (0 skipped), fuzzy30 30 (0 skipped)" in text
    assert "over 5 actor-disjoint folds, " in text
    assert "Along the share of conflicting clips: " in text
    for caption in ("Corpus clear", "Corpus fuzzy30", "Corpus conflict60", "WAR on all test clips"):
        assert f"**{caption}" in text
    # The clips of a fold's parts, counted from the corpus itself.
    line = next(line for line in text.splitlines() if line.startswith("| fuzzy30, fold 2 |"))
    numbers = [int(n) for cell in line.split("|")[2:5] for n in cell.split("/")]
    assert (sum(numbers), sum(numbers[1::4])) == (30, 14)
    # Both kinds of clips that are no one's here: nothing unknown is printed as a number.
    assert "nan" not in text
    assert "| fuzzy30: clear | fuzzy30: unclear | conflict60: clear |" in text
    assert "UAR on the test clips that are clear in every corpus" in text
    assert "2 actors tested: an interval over so few is too narrow, so nothing" in text
    assert "Few seeds: what another seed would change is hardly known." in text
    assert main(words(tmp_path, *more)) == 0
    assert len(trained) == 72


def test_what_was_not_run_is_not_on_the_page(trained, copied_corpora, unaudited, tmp_path):
    more = ["--shares", "0.3", "--conflicts", "", "--networks", "video,n0,n2"]
    assert main(words(tmp_path, *more)) == 0
    text = (tmp_path / "study" / "page.md").read_text()
    assert "One seed was run: the intervals are over actors alone." in text
    # All folds are the default.
    assert "synthetic_fifths, folds 1, 2, 3, 4, 5" in text
    assert "N2 > N0 is undecided at 30%." in text
    assert "N2 > N1" not in text
    assert "conflicting clips:" not in text


def test_a_failed_training_leaves_a_page_that_says_so(
    trained, copied_corpora, unaudited, tmp_path, monkeypatch, capsys
):
    train = trainings.train

    def diverging(config, folder, quiet, report):
        if folder.name.startswith("n2_lstm_fuzzy30"):
            raise UserError(f"{folder}/metrics.jsonl: the loss is not finite")
        train(config, folder, quiet=quiet, report=report)

    monkeypatch.setattr(trainings, "train", diverging)
    more = ["--shares", "0,0.3", "--conflicts", "", "--networks", "n0,n2", "--folds", "1"]
    assert main(words(tmp_path, *more)) == 3
    assert len(trained) == 3
    cell = "n2_lstm_fuzzy30_fold1_seed0"
    assert f"failed: {cell}: " in capsys.readouterr().err
    text = (tmp_path / "study" / "page.md").read_text()
    assert f"- {cell}: metrics.jsonl: the loss is not finite" in text
    assert "Missing runs: 1 training failed." in text
    stored = json.loads((tmp_path / "study" / "cells" / cell / "result.json").read_text())
    assert stored["failed"].endswith("the loss is not finite")
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config.data.path=x"], "the study renders its own corpora"),
        (["--shares", "", "--conflicts", ""], "give at least one share"),
        (["--folds", "7"], "expected all, or some of 1 to 5"),
        (["--aggregator", "gru"], "aggregator is 'gru'"),
        (["--networks", ""], "--networks is empty"),
        (["--config", "mrpn.py:size=study,protocol=foo"], "expected one of crema_d_folds"),
        (["--workers", "0"], "--workers is 0; expected 1 to"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path, more, message, capsys):
    assert main(words(tmp_path, *more)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "study").exists()


def test_shares_outside_0_to_1_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(words(tmp_path, "--shares", "0,30"))
    assert "expected shares from 0 to 1" in capsys.readouterr().err


def test_a_verdict_is_as_much_as_the_interval_carries():
    nan = float("nan")
    assert verdict.cell(found(0.1, 0.02, 0.2)) == "holds; no worse (+10.0)"
    assert verdict.cell(found(-0.1, -0.2, -0.03)) == "does not hold (lower); worse (-10.0)"
    assert verdict.cell(found(0.01, -0.01, 0.03)) == "undecided; no worse (+1.0)"
    assert verdict.cell(found(-0.01, -0.015, -0.005)) == "does not hold (lower); no worse (-1.0)"
    assert verdict.cell(found(0.1, -0.05, 0.25)) == "undecided; undecided (+10.0)"
    assert verdict.cell(found(0.1, nan, nan)) == "undecided; undecided (+10.0)"
    assert verdict.cell(found(0.1, 0.02, 0.2, tested=9)) == "undecided; undecided (+10.0)"
    assert verdict.cell(None) == "-"


def test_the_verdict_names_the_shares_at_which_a_claim_holds_and_no_others():
    yes, no, open_ = found(0.1), found(-0.1), found(0.1, -0.1, 0.3)
    along = {
        0.6: {("n1", "n0"): yes, ("n2", "n1"): open_, ("n2", "n0"): yes},
        0.0: {("n1", "n0"): no, ("n2", "n1"): open_, ("n2", "n0"): yes},
        0.3: {("n1", "n0"): yes, ("n2", "n1"): open_, ("n2", "n0"): open_},
    }
    assert verdict.paragraph("fuzzy", along) == (
        "Along the share of fuzzy clips: "
        "N1 > N0 holds at 30% and 60%, does not hold (lower) at 0%. "
        "N2 > N1 is undecided at every share. "
        "N2 > N0 holds at 0% and 60%, is undecided at 30%."
    )
    assert verdict.paragraph("fuzzy", {0.0: {}}) == ""
