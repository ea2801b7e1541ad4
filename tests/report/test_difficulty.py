"""The table of the demo: what is measured, its interval, its bound, and what decides."""

import pytest

from aver_jax.report.difficulty import difficulty, difficulty_text


def score(value, half=0.05):
    return {"value": value, "low": value - half, "high": value + half}


def audit(picture=0.4, sound=0.3, level=0.2):
    found = {"picture": picture, "sound": sound, "level": level}
    return {
        "baselines": [
            {"name": f"a {group}", "group": group, "model": model, **score(value - lower)}
            for group, value in found.items()
            for model, lower in (("SVM", 0.1), ("logistic regression", 0.0))
        ]
    }


def face(war=0.8, **lost):
    return {
        "metrics": {"war": score(war)},
        "controls": {
            "rows": [{"control": "as is", "minus_as_is": None}]
            + [
                {"control": name.replace("_", " "), "minus_as_is": {"war": score(-points / 100)}}
                for name, points in lost.items()
            ]
        },
    }


def fused(war=0.9, audio=0.3, video=0.08):
    branches = {"audio": audio, "video": video}
    return {
        "metrics": {"war": score(war)},
        "branches": {k: {"fused_minus": {"war": score(v, 0.1)}} for k, v in branches.items()},
    }


def verdicts(rows):
    return {row.name.strip(): row.verdict for row in rows if row.kept is not None}


def test_the_best_baseline_of_a_group_is_held_against_its_bound():
    rows = difficulty(audit(picture=0.51), face(frames_shuffled=9), fused())
    assert rows[0].name == "pictures, best of 2 (a picture)"
    assert (rows[0].value, rows[0].verdict) == ("51.0% [46.0, 56.0]", "not kept")
    assert [row.verdict for row in rows[1:3]] == ["kept", "kept"]


def test_the_largest_loss_decides_and_a_gain_has_its_sign():
    lost = {"frames_shuffled": -2.1, "two_frames_repeated": 8.0, "one_frame_repeated": 60}
    rows = difficulty(audit(), face(**lost), fused())
    text = difficulty_text(rows)
    assert "+2.1 points [-2.9, +7.1]" in text
    assert verdicts(rows)["one frame repeated"] == "kept"
    assert "two frames repeated" not in verdicts(rows)


def test_one_frame_shows_nothing_where_the_front_end_sees_nothing_of_it():
    lost = {"frames_shuffled": 1.0, "two_frames_repeated": 7.9, "one_frame_repeated": 60}
    rows = difficulty(audit(), face(**lost), fused(), sees_one_frame=False)
    assert verdicts(rows)["two frames repeated"] == "not kept"
    assert "one frame repeated (this front end sees nothing)" in difficulty_text(rows)


@pytest.mark.parametrize(("video", "verdict"), [(0.05, "kept"), (0.049, "not kept")])
def test_the_fusion_is_held_against_the_better_branch(video, verdict):
    rows = difficulty(audit(), face(), fused(video=video))
    assert verdicts(rows)["above its better branch (video)"] == verdict
    assert "[-5" in rows[-1].value


def test_a_network_of_one_frame_has_no_controls_of_time():
    names = [row.name for row in difficulty(audit(), face(), fused())]
    assert not [name for name in names if "frame" in name]


def test_branches_trained_alone_decide_where_they_were_trained():
    alone = {"video": {"metrics": {"war": score(0.86)}}, "audio": {"metrics": {"war": score(0.5)}}}
    rows = difficulty(audit(), face(), fused(war=0.9, video=0.2), alone=alone)
    assert verdicts(rows)["above the better one trained alone (video, 86.0%)"] == "not kept"
    assert not [name for name in verdicts(rows) if name.startswith("above its better")]
    assert rows[-1].value == "+4.0 points"
