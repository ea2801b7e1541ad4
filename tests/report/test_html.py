"""Reports: one file that fetches nothing, escapes what it is given, and misses no section."""

import json
import re

import numpy as np
import pytest

from aver_jax.errors import UserError
from aver_jax.evaluation import scores
from aver_jax.report import html, sections

CLASSES = ["ANG", "HAP", "SAD"]


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(1)
    labels = np.arange(24) % 3
    logits = rng.normal(size=(24, 3)) + 2 * np.eye(3)[labels]
    actors = np.repeat([f"10{i:02d}" for i in range(4)], 6)
    sexes = np.repeat(["male", "", "female", "male"], 6)
    described = {
        "run": "r", "dataset": "synthetic", "protocol": "synthetic_fifths", "fold": 1,
        "target": "intended", "split": "test", "checkpoint": "best", "step": 3, "views": 1,
        "dropped": 0, "classes": CLASSES,
    }  # fmt: skip
    branches = {"audio": rng.normal(size=(24, 3)), "video": logits}
    return {
        **described,
        **scores.score_clips(logits, labels, actors, sexes, CLASSES, 50, branches),
    }


def _outside(page):
    """Every address in the page that is neither inlined nor an anchor in it."""
    found = re.findall(r'(?:src|srcset|href|action)\s*=\s*"([^"]*)"', page)
    found += re.findall(r"url\(([^)]*)\)|@import ([^;]*)", page)
    return [address for address in found if not str(address).startswith(("data:", "#"))]


def test_the_page_is_self_contained(tmp_path, results):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\0" * 100)
    picture = html.photo(np.zeros((8, 8, 3), np.uint8), "crops")
    page = html.write_report(
        tmp_path / "deep" / "index.html",
        "A title",
        [
            sections.summary(results),
            sections.scores(results),
            sections.explained([[html.video(clip, "a clip"), picture]] * 2),
            sections.meaning(CLASSES),
            sections.steps([("train", "aver train --workdir run")]),
            sections.environment([("device", "cpu")]),
        ],
        metadata=[("dataset", "synthetic")],
    ).read_text()
    assert _outside(page) == []
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count("data:video/mp4;base64,") == 2
    for words in ("synthetic_fifths", "Not for decisions about people", "aver train --workdir run"):
        assert words in page
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["index.html"]


def test_text_is_escaped_and_empty_sections_are_left_out(tmp_path):
    sections = [html.Section("Kept <b>", [html.Text(["<img src=x>"])]), html.Section("Empty", [])]
    page = html.write_report(tmp_path / "i.html", "a & b", sections).read_text()
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page
    assert "Kept &lt;b&gt;" in page
    assert "a &amp; b" in page
    assert "Empty" not in page


def test_a_long_video_is_named_and_not_inlined(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "VIDEO_LIMIT_BYTES", 10)
    clip = tmp_path / "long.mp4"
    clip.write_bytes(b"\0" * 11)
    block = html.video(clip, "a clip")
    assert isinstance(block, html.Text)
    assert str(clip) in block.paragraphs[0]


def test_branches_are_shown_beside_their_fusion_and_only_where_there_are_any(results):
    table = sections.scores(results).blocks[0].stacks[1][1]
    assert [row[0] for row in table.rows] == ["audio", "video", "fused"]
    assert table.rows[1][3:] == ("+0.0", "+0.0 to +0.0")
    alone = {name: value for name, value in results.items() if name != "branches"}
    assert table.title not in str(sections.scores(alone))


def test_unknown_values_are_dashes(results):
    unknown = {**results, "recall": {"ANG": {"value": None, "low": None, "high": None, "clips": 0}}}
    del unknown["branches"]
    table = sections.scores(unknown).blocks[0].stacks[1][0]
    assert table.rows == [("anger", "-", "no interval", 0)]


def test_the_report_of_a_run_needs_its_folder_alone(tmp_path, results):
    run = tmp_path / "run"
    for split in ("validation", "test"):
        (run / "evaluation" / split).mkdir(parents=True)
        text = json.dumps({**results, "split": split})
        (run / "evaluation" / split / "results.json").write_text(text)
    config = {
        "model": {"name": "timesformer"}, "data": {"fold": 1, "target": "intended"},
        "classes": CLASSES, "protocol": "synthetic_fifths", "modalities": ["frames"],
        "preparation": {"dataset": "synthetic", "margin": 1.3}, "optimizer": {"lr": 0.001},
    }  # fmt: skip
    (run / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": 5, "epoch": 1, "train/loss": 1.0, "train/war": 0.5, "learning_rate": 1e-3},
        {"step": 5, "epoch": 1, "validation/loss": 1.0, "validation/war": 0.625},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = sections.training_report(run)
    assert path == run / "report" / "index.html"
    page = path.read_text()
    for words in (
        "Best validation war at step 5",
        "Scores on the test split",
        "Scores on the validation split",
        "optimizer.lr",
        "rendered clip",
    ):
        assert words in page
    assert page.index("test split") < page.index("validation split")
    assert _outside(page) == []


def test_a_run_without_logs_or_scores_still_has_a_report(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"classes": CLASSES, "protocol": "p"}))
    page = sections.training_report(tmp_path).read_text()
    assert "What the labels mean" in page
    assert "Training</h2>" not in page


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: no config\.json"):
        sections.training_report(tmp_path)


def test_labels_are_said_to_mean_what_is_known_of_them():
    def words(dataset):
        return sections.meaning(["a"], "intended", dataset).blocks[0].paragraphs[0]

    assert "in a rendered clip" in words("synthetic")
    assert "in an acted clip" in words("crema_d")
    assert "acted" not in words("folder")
