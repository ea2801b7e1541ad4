"""The table of `make chips`: rows from what `aver compile` wrote, kept over a stop."""

import json

from tools import chips_table


def result(**fields):
    return {
        "program": "train", "chip": "v5e", "devices": 4, "clips": 32,
        "seconds": 0.2, "floor": 0.05, "done": 3e12,
        "bytes": 2e11, "memory": {"parameters": 2**30, "batch": 2**30}, "fits": True,
        "collectives": [{"kind": "all-reduce", "count": 3, "seconds": 0.001}],
        "compile_seconds": 9.0, "jax": "0.11.2",
    } | fields  # fmt: skip


def test_rows_are_read_kept_and_drawn(tmp_path, monkeypatch, capsys):
    asked = []

    def compiled(words):
        asked.append(words)
        file = words[words.index("--json") + 1]
        with open(file, "w") as stream:
            overrides = [word for word in words if word.startswith("--config.")]
            config = words[words.index("--config") + 1]
            version = chips_table.metadata.version("jax")
            json.dump(result(jax=version, config=config, overrides=overrides), stream)
        return type("Done", (), {"returncode": 0})

    programs = chips_table.PROGRAMS[:3]
    monkeypatch.setattr(chips_table, "PROGRAMS", programs)
    monkeypatch.setattr(chips_table.subprocess, "run", compiled)
    out = tmp_path / "chips"
    assert chips_table.main(["--out", str(out), "--only", "*, h100"]) == 0
    assert chips_table.main(["--out", str(out)]) == 0
    assert len(asked) == len(programs)  # none of them twice
    (row, *_), text = json.loads((out / "results.json").read_text()), (out / "table.md").read_text()
    assert row["ms"] == 200
    assert row["clips_per_device"] == 8
    assert row["gib"] == 2
    assert row["collectives"] == {"all-reduce": 3}
    assert "| 4 x v5e | 8 | 200.0 | 50.0 | 3.0 | 200 | 2.0 | 3 all-reduce (1.0 ms) |" in text
    assert (out / "times.png").read_bytes().startswith(b"\x89PNG")


def test_a_program_that_fails_is_told_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(
        chips_table.subprocess, "run", lambda words: type("Done", (), {"returncode": 2})
    )
    assert chips_table.main(["--out", str(tmp_path), "--only", "MRPN*"]) == 1
    assert json.loads((tmp_path / "results.json").read_text()) == []
